"""The table of formats in the documents has every reader."""

import runpy
from typing import Any

import pytest
from builders.paths import ROOT

from muvera.convert.registry import READERS

TABLE = runpy.run_path(str(ROOT / ".ci" / "formats_table.py"))


@pytest.mark.parametrize("place", TABLE["PAGES"], ids=lambda place: place[0].name)
def test_the_tables_of_formats_and_encoders_are_written_from_the_program(place: Any) -> None:
    written = place[0].read_text(encoding="utf-8")
    assert TABLE["page"](*place) == written, "Write it with: python .ci/formats_table.py"


def test_every_reader_has_an_example_of_its_options() -> None:
    for reader in READERS.values():
        _, *options = reader.example.split(" -o ")
        assert {option.partition("=")[0] for option in options} <= set(reader.options), reader.name
