"""Options of several commands, and printing: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, BadParameter, Option

from ..metadata import kind_of
from ..utils.hints import Argument as MessageArgument
from ..utils.hints import Hint, message_of

if TYPE_CHECKING:
    from ..texts.database import TextDocument
    from ..texts.hit import Hit, TextExplanation

# -- options ---------------------------------------------------------------------


def _pair(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE.

    True, false and numbers are converted, other values stay text.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BadParameter(f"it must be NAME=VALUE, got {text!r}.")
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    return name.replace("-", "_"), parsed if isinstance(parsed, (bool, int, float)) else value


def _condition(text: str) -> Any:
    """Parse a condition in JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadParameter(
            f'it must be JSON, such as {{"year": {{"$gte": 2000}}}}, got {text!r}: {error}.'
        ) from None


Source = Annotated[Path, Argument(metavar="SOURCE", help="Token embeddings: an index, a file or a folder.")]
Out = Annotated[Path, Argument(metavar="OUT", help="A new folder for the index.")]
Format = Annotated[str | None, Option("--format", "-f", help="Name in muvera formats (default: detected).")]
ReaderOption = Annotated[
    list[Any] | None,
    Option(
        "--option",
        "-o",
        metavar="NAME=VALUE",
        parser=_pair,
        help="Option of the format's reader, such as part=queries if the input also has documents; can be repeated.",
    ),
]
Queries = Annotated[
    Path | None,
    Option(
        help="Query embeddings in any format; documents in them are ignored (default: windows of documents)."
    ),
]
Encoder = Annotated[
    str | None,
    Option(
        help="fde, moments, mean, simhash, paper or reference; or the folder of an index or of a saved encoder "
        "(default: fde)."
    ),
]
Config = Annotated[Path | None, Option(help='JSON file, such as {"num_repetitions": 40} for simhash.')]
Backend = Annotated[
    Literal["auto", "exact", "scan", "hnsw"] | None,
    Option(help="exact reads every vector, scan reads 4-bit codes, hnsw searches a graph (default: auto)."),
]
Tokens = Annotated[
    Literal["float32", "float16", "int8", "4bit", "2bit", "1bit"] | None,
    Option(
        help="How tokens are stored: as floats, or as codes with 1/2 (int8) to 1/13 (1bit) of float16's bytes."
    ),
]
TextEncoder = Annotated[
    str | None,
    Option(help="Encoder of questions and new texts (default: the index's, if colbert-small or minilm)."),
]
Where = Annotated[
    Any,
    Option(
        metavar="JSON", parser=_condition, help='Condition on the metadata, such as {"year": {"$gte": 2000}}.'
    ),
]
Recall = Annotated[float | None, Option(help="Target mean recall, such as 0.95, instead of --candidates.")]
Threads = Annotated[int | None, Option(help="Number of threads (default: all cores).")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace an existing OUT.")]
Json = Annotated[bool, Option("--json", help="Print one JSON document instead of text.")]


def given(**values: Any) -> dict[str, Any]:
    """Return the values that are not None, so that the library's defaults apply to the others."""
    return {name: value for name, value in values.items() if value is not None}


# -- printing --------------------------------------------------------------------

# What a user of the command line does instead of an operation of Python.
_INSTEAD = {
    "build_from_tokens": "Omit --keep-codes.",
    "calibrate": "Give --candidates.",
    "check_id": "",
    "give_ids": "Name their column with --id.",
    "list_formats": "muvera formats",
    "load_vectors": "Use muvera search.",
    "omit": "Omit it",
    "raise_limits": "raise --time-limit and --memory-limit",
    "rank": "Give --rerank none, or load the documents again with --tokens.",
    "set_token": "Set MUVERA_TOKEN.",
    "update": "Use muvera texts update to replace it.",
}

# Options of readers, which are given with -o.
_READER_OPTIONS = ("column", "id_column", "table", "collection", "vector", "id_field", "field")

#: Start of a warning.
WARNING = "muvera: warning: "

# Maximum characters of a printed text, and minimum similarity of a marked word as a
# share of the best one.
_PASSAGE, _MARKED = 220, 0.8

# Before the lines of a text, below its title.
_INDENT = "    "

# Seconds between two drawings of a bar without progress.
_REDRAW_SECONDS = 0.5


def note(text: str) -> None:
    """Print a line to standard error."""
    typer.echo(text, err=True)


def warn(text: str) -> None:
    """Print a warning to standard error."""
    note(WARNING + text)


def show(json_: bool, facts: Mapping[str, Any], text: str, *remarks: str) -> None:
    """Print `facts` as one JSON document, the only output.

    Or `text`, and `remarks` to standard error.
    """
    if json_:
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    typer.echo(text, nl=bool(text))
    for remark in remarks:
        note(remark)


def one_line(error: BaseException, options: Mapping[str, str] | None = None) -> str:
    """Return an error's message for the command line, without line breaks.

    `options` are the command's options by their Python names, such as ``{"max_bytes":
    "--max-bytes"}``.
    """
    if isinstance(error, OSError) and error.strerror is not None:
        text = f"{error.strerror.rstrip('.')}."
        if error.filename is not None:
            text = f"{os.fsdecode(error.filename)}: {text}"
    else:
        text = message_of(error).worded(lambda part: _worded(part, options or {}))
    return " ".join(text.split()) or type(error).__name__


def _worded(part: MessageArgument | Hint, options: Mapping[str, str]) -> str:
    """Return what a user of a command with these options reads for an argument or a hint."""
    if isinstance(part, Hint):
        return _INSTEAD.get(part.operation, part.words)
    if part.name in options:
        option, flag = options[part.name], part.value in (None, "", "True")
        return option if flag else f"{option} {part.value}"
    if part.name in _READER_OPTIONS and "option" in options:
        return f"-o {part.name}={part.value or 'NAME'}"
    return str(part)


@contextmanager
def progress_bar(total: int | None, unit: str, title: str) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on standard error, and yield the function that advances it.

    The bar appears only on a terminal, because in a log every step would be a line.
    Its clock also runs during a long step.  Its title is the name of the stage.  A
    complete bar is replaced by this name and the clock.
    """
    from tqdm import tqdm

    from ..utils.parallel import listening

    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with tqdm(total=total, unit=f" {unit}", unit_scale=True, desc=title, leave=False) as bar:
        stages, ended = [""], threading.Event()

        def redraw() -> None:
            while not ended.wait(_REDRAW_SECONDS):
                complete = total is not None and bar.n >= total > 0
                bar.bar_format = "{desc}[{elapsed}]" if complete or not (total or bar.n) else None
                bar.set_description(stages[-1] or ("finishing" if complete else title))

        thread = threading.Thread(target=redraw, daemon=True)
        thread.start()
        try:
            with listening(stages.append):
                yield bar.update
        finally:
            ended.set()
            thread.join()


def columns() -> int:
    """Return the width of printed text: that of the terminal, at most 100."""
    return min(100, shutil.get_terminal_size((80, 24)).columns)


def megabytes(size: float) -> str:
    """Return a number of bytes with its unit: 1.4 kB, 57.3 MB or 3.2 GB."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"


def seconds(duration: float) -> str:
    """Return a duration with its unit: 3.2 s, 2.1 ms or 0.04 ms."""
    if duration >= 1:
        return f"{duration:.1f} s"
    return f"{1e3 * duration:.1f} ms" if duration >= 1e-3 else f"{1e3 * duration:.2f} ms"


# -- texts ----------------------------------------------------------------------


def hits_text(hits: Iterable[Hit], explain: bool) -> str:
    """Return each text's rank, title, score and best passage, and with `explain` the matching words."""
    lines = []
    for rank, hit in enumerate(hits, 1):
        title, body = _title(hit.id, hit.metadata), hit.text
        end = f"  {hit.score:.3f}"
        space = max(10, columns() - 4 - len(end))
        shown = _shortened(title, space)
        lines.append(f"{rank:2d}  {typer.style(shown + ' ' * (space - _width(shown)), bold=True)}{end}")
        if title != str(hit.id):
            lines.append(f"    {hit.id}")
            body = body.removeprefix(title).lstrip()
        reason = hit.explanation
        if reason is not None and hit.span is None:
            best = max(reason.sentences, key=lambda sentence: sentence.score, default=None)
            if best is not None and best.stop > _PASSAGE:  # start with the best sentence
                body = f"... {reason.text[best.start :].removeprefix(title).lstrip()}"
        passage = wrapped(textwrap.shorten(body, _PASSAGE, placeholder=" ..."), _INDENT, _INDENT)
        lines.append(passage if reason is None else _marked(passage, reason))
        if explain and reason is not None:
            parts = " + ".join(f"{name} {value:.3f}" for name, value in hit.parts.items())
            lines.append(wrapped(f"score: {parts}", _INDENT, _INDENT))
            pairs = (
                f"{word}={match or '(no word)'} {similarity:.2f}"
                for word, match, similarity in reason.words()
            )
            lines.append(wrapped("matches: " + ", ".join(dict.fromkeys(pairs)), _INDENT, 2 * _INDENT))
    return "\n".join(lines)


def _title(id: int | str, metadata: dict[str, object]) -> str:
    title = metadata.get("title")
    return title.strip() if isinstance(title, str) and title.strip() else str(id)


def _width(text: str) -> int:
    """Return the columns of a terminal that a text fills: two for a wide character, none for a combining one."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def _shortened(text: str, width: int) -> str:
    """Return a text of at most `width` columns, on one line, cut between words if possible."""
    text = " ".join(text[: 20 * width].split())
    return text if _width(text) <= width else f"{_lines(text, width - 4)[0][: width - 4]} ..."


def wrapped(text: str, first: str = "", later: str = "  ") -> str:
    """Wrap each line of a text to at most :func:`columns`, with these indents."""
    return "\n".join("\n".join(_lines(line, columns(), first, later)) for line in text.split("\n"))


def _lines(text: str, width: int, first: str = "", later: str = "") -> list[str]:
    # A NUL after each wide character fills its second column while textwrap counts
    # characters.
    padded = "".join(f"{character}\0" if _width(character) == 2 else character for character in text)
    wide = "\0" in padded
    width -= wide  # a line may end between a character and its NUL
    # Wide characters have no spaces between words; a path stays whole, so that it can
    # be copied.
    lines = textwrap.wrap(
        padded, width, initial_indent=first, subsequent_indent=later, break_long_words=wide,
        break_on_hyphens=False,
    )  # fmt: skip
    return [line.replace("\0", "") for line in lines]


def _marked(lines: str, reason: TextExplanation) -> str:
    """Highlight the words that matched best.

    click removes the colors if the output is not a terminal.
    """
    best = max(match.similarity for match in reason.matches)
    words = {
        reason.text[slice(*match.document)] for match in reason.matches if match.similarity > _MARKED * best
    }
    pattern = r"(?<!\w)(" + "|".join(map(re.escape, sorted(words - {""}, key=len, reverse=True))) + r")(?!\w)"
    return re.sub(
        pattern, lambda match: typer.style(match[0], fg="yellow", bold=True), lines, flags=re.IGNORECASE
    )


def document_text(document: TextDocument) -> str:
    """Return a text with its id and its metadata."""
    lines = [typer.style(str(document.id), bold=True)]
    lines += [wrapped(f"{name}: {value}", _INDENT, 2 * _INDENT) for name, value in document.metadata.items()]
    return "\n".join([*lines, wrapped(document.text.rstrip(), _INDENT, _INDENT), ""])


def document_line(document: TextDocument) -> str:
    """Return the id of a text, and the start of its title or text, on one line."""
    title, start = _title(document.id, document.metadata), f"{document.id}  "
    space = max(10, columns() - _width(start))
    return start + _shortened(document.text if title == str(document.id) else title, space)


# -- conditions that match nothing -------------------------------------------------

# A condition that is true for practically every number, and that every database can
# evaluate.
_NUMBER = {"$gte": -1e15}


def warn_of_unmatched(where: Any, matches: Callable[[Any], object]) -> None:
    """Warn about each field of `where` that no document has, or only with values of another type.

    `matches` returns True if a document satisfies a condition.  Call this after an
    empty result.
    """
    compared = set(_compared(where or {}))
    for field in sorted({field for field, _ in compared}):
        if not matches({field: {"$exists": True}}):
            warn(f"--where names the field {field!r}, which no document has.")
        elif (field, "number") in compared and not matches({field: _NUMBER}):
            warn(f"--where compares {field!r} with a number, but no document has a number there.")
        elif (field, "text") in compared and not matches(
            {field: {"$exists": True}, "$not": {field: _NUMBER}}
        ):
            warn(f"--where compares {field!r} with a string, but every document has a number there.")


def _compared(condition: Any) -> Iterator[tuple[str, str | None]]:
    """Yield a field and the kind of its operand for each comparison in a valid condition."""
    for field, value in condition.items():
        if field in ("$and", "$or", "$not"):
            for part in [value] if field == "$not" else value:
                yield from _compared(part)
            continue
        for name, operand in value.items() if isinstance(value, dict) else [("$eq", value)]:
            for each in operand if isinstance(operand, list) else [operand]:
                yield field, None if name == "$exists" else kind_of(each)
