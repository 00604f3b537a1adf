"""The table of formats in the documents has every reader."""

import runpy

from builders.paths import ROOT

from muvera.convert.registry import READERS

TABLE = runpy.run_path(str(ROOT / ".ci" / "formats_table.py"))


def test_the_table_of_formats_is_written_from_the_readers() -> None:
    assert TABLE["page"]() == TABLE["PAGE"].read_text(encoding="utf-8"), (
        "Write it with: python .ci/formats_table.py"
    )


def test_every_reader_has_an_example_of_its_options() -> None:
    for reader in READERS.values():
        _, *options = reader.example.split(" -o ")
        assert {option.partition("=")[0] for option in options} <= set(reader.options), reader.name
