"""Messages whose advice is data: the words of Python, and parts with other words."""

import json
import pickle
import re

import pytest
from builders.paths import ROOT

from muvera.cli import errors
from muvera.serve import app
from muvera.utils.hints import Argument, Hint, Message, message_of

MESSAGE = Message("out exists. Give ", Argument("overwrite", "True"), ". ", Hint("update", "Use update."))


def test_a_message_is_the_text_for_python() -> None:
    assert MESSAGE == str(ValueError(MESSAGE)) == "out exists. Give overwrite=True. Use update."
    assert [str(Argument("k", value)) for value in (None, "", "5")] == ["k", "k=", "k=5"]


def test_a_message_in_a_message_keeps_its_parts() -> None:
    assert Message("a: ", MESSAGE).parts == ("a: ", *MESSAGE.parts)


def test_each_argument_and_each_hint_is_worded() -> None:
    worded = MESSAGE.worded(lambda part: part.name.upper() if isinstance(part, Argument) else part.operation)
    assert worded == "out exists. Give OVERWRITE. update"


@pytest.mark.parametrize("kind", [ValueError, KeyError, FileExistsError])
def test_the_message_of_an_error(kind: type[Exception]) -> None:
    assert message_of(kind(MESSAGE)).parts == MESSAGE.parts
    assert message_of(pickle.loads(pickle.dumps(kind(MESSAGE)))).parts == MESSAGE.parts
    assert message_of(kind("no data")) == "no data"
    assert message_of(OSError(2, "No such file", "a.npy")) == "[Errno 2] No such file: 'a.npy'"


def test_a_message_as_json() -> None:
    parts = json.loads(json.dumps(MESSAGE.to_json()))
    assert Message.from_json(parts).parts == MESSAGE.parts
    with pytest.raises(KeyError):
        Message.from_json([["Other", "a"]])


def test_the_tables_of_the_front_ends_name_operations_that_exist() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "muvera").rglob("*.py")]
    operations = {name for source in sources for name in re.findall(r'Hint\(\s*"(\w+)"', source)}
    assert operations == set(errors._INSTEAD)
    assert set(app._INSTEAD) < operations
