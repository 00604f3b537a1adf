"""``muvera info``: describe an index, an encoder or token embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from typer import Argument, Option

import muvera

from .options import FormatOption, JsonOption, ReaderOptions
from .printing import WARNING, show, wrapped


def info(
    path: Annotated[
        str, Argument(metavar="PATH", help="An index, an engine's URL, an encoder's folder, or embeddings.")
    ],
    format: FormatOption = None,
    option: ReaderOptions = None,
    full: Annotated[bool, Option("--full", help="Compare all checksums, or measure all tokens.")] = False,
    json_: JsonOption = False,
) -> None:
    """Describe an index, an encoder or token embeddings.

    For an index: sizes, settings and the recall of its candidates.  For a URL: the
    collection's settings and calibration.  For embeddings: format and size.

    \b
    Example:
      muvera info my.index
    """
    from ..utils.checks import url_scheme

    described = _collection(path) if url_scheme(path) else _described(Path(path), format, option, full)
    place = described.facts.get("location", path)  # without a password
    text = "\n".join(
        [f"{place}: {described.kind}", *map(_fitted, _fact_lines(described.shown())), *described.lines]
    )
    facts = {"path": place, "kind": described.kind, **described.facts}
    show(json_, facts, text, *described.remarks)


# Recalls whose numbers of candidates are shown.
_SHOWN = (0.8, 0.9, 0.95, 0.99)


class _Described(NamedTuple):
    """What a folder or file contains."""

    kind: str
    facts: dict[str, Any]
    #: Lines after the facts.
    lines: tuple[str, ...] = ()
    #: Lines to standard error.
    remarks: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        """Return the facts that are printed as lines, with their labels."""
        labels = {"exact_tokens": "exact up to (tokens)"}
        if self.kind == "index" and self.facts["vectors"] is None:
            labels["encoder"] = "encoder (not in use)"
        hidden = ["survey", "warnings"]
        if self.kind == "index" and self.facts["token_codec"]["codec"] == "table":
            hidden.append("exact_tokens")  # such an index always searches all tokens
        shown = {labels.get(name, name): value for name, value in self.facts.items() if name not in hidden}
        return {name: _readable(value) for name, value in shown.items()}


def _described(path: Path, format: str | None, option: list[Any] | None, full: bool) -> _Described:
    from ..fde.files import is_encoder_folder
    from ..pages.folder import is_page_index
    from .sources import is_index

    if format is None and is_page_index(path):
        return _Described("page index", {**muvera.PageIndex.load(path).info(), **_measured(path)})
    if format is None and is_index(path):
        return _index(path, full)
    if format is None and is_encoder_folder(path):
        config = muvera.load_encoder(path).config
        values = {**config.to_dict(), "vector_dimension": config.vector_dimension}
        return _Described("encoder", {"encoder": values})
    return _embeddings(path, format, option, full)


def _collection(url: str) -> _Described:
    from ..engines import EngineIndex

    with EngineIndex(url) as index:
        stored = index.engine.stored  # raises if there is none
        documents = "vectors" if stored.text_encoder is None else "texts"
        kind = documents if stored.pages is None else "pages"
        return _Described(f"collection of {kind}", index.info().to_dict())


def _index(path: Path, full: bool) -> _Described:
    from ..index.generations import texts_file
    from ..texts.database import DocumentDatabase
    from ..texts.passages import count_long_texts

    index = muvera.MuveraIndex.load(path, verify_files=full or None)
    described = index.info()
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    facts: dict[str, Any] = {"bytes_on_disk": size, "verified": full}
    if (file := texts_file(path)) is not None:
        with closing(DocumentDatabase.open(file)) as database:
            long = count_long_texts(index.contents, database.passage)
            facts |= {"texts": len(database), "long_texts": long, "text_encoder": database.text_encoder}
    facts |= {**described.to_dict(), **_measured(path)}
    return _Described("index", facts, remarks=tuple(WARNING + warning for warning in described.warnings))


def _measured(path: Path) -> dict[str, Any]:
    """Return the recall that a server measured while people searched, if it did."""
    from ..diagnostics.recall_report import read_report, state_file

    report = read_report(state_file(path))
    return {} if report is None else {"measured_recall": report.to_dict()}


def _embeddings(path: Path, format: str | None, option: list[Any] | None, full: bool) -> _Described:
    from .sources import open_documents

    source = open_documents(path, format, option)
    facts: dict[str, Any] = {
        "format": source.name,
        "documents": source.num_documents,
        "tokens": source.num_tokens,
        "dimension": source.dimension,
        "lossy": source.lossy,
        "nbits": source.nbits,
    }
    if full:
        report = muvera.convert.survey(source)
        facts["survey"] = report.to_dict()
        return _Described("embeddings", facts, lines=(wrapped(report.text, later=" " * 9),))
    unknown = source.num_documents is None
    return _Described(
        "embeddings", facts, remarks=("--full counts documents and tokens.",) if unknown else ()
    )


def _readable(value: object) -> Any:
    """Return how tokens are stored, or what a collection is, for people.

    Before a codec is fitted, tokens are floats.  Of a calibration, only a few of the
    recalls are shown.
    """
    from ..index.token_store import FIT_TOKENS
    from ..reranking.codecs import CODECS

    if isinstance(value, dict) and "sentence" in value:
        return value["sentence"]
    if isinstance(value, dict) and value.get("interval"):
        return {**value, "interval": "{:.3f} to {:.3f}".format(*value["interval"])}
    if isinstance(value, dict) and value.get("candidates_by_recall"):
        numbers = dict(value["candidates_by_recall"])
        some = ", ".join(f"{numbers[recall]:,} for {recall:g}" for recall in _SHOWN if recall in numbers)
        return {**value, "candidates_by_recall": some}
    if not isinstance(value, dict) or "fitted" not in value:
        return value
    codec = value["codec"]
    if codec in CODECS and not value["fitted"]:
        codec = f"floats, {codec} from {FIT_TOKENS:,} tokens on"
    return {name: shown for name, shown in {**value, "codec": codec}.items() if name != "fitted"}


def _fitted(line: str) -> str:
    """Wrap a fact on a terminal; its value stays in its column."""
    indent = line[: len(line) - len(line.lstrip())]
    return wrapped(line.lstrip(), indent, " " * 26)


def _fact_lines(facts: dict[str, Any], indent: int = 0) -> Iterator[str]:
    """Yield a line for each fact that is not None.

    The lines of a nested dictionary are indented.
    """
    for name, value in facts.items():
        start = " " * indent + name.replace("_", " ")
        if isinstance(value, dict):
            yield start
            yield from _fact_lines(value, indent + 2)
        elif isinstance(value, float):
            yield f"{start:<25} {value:.4g}"
        elif value is not None:
            yield f"{start:<25} {value:,}" if type(value) is int else f"{start:<25} {value}"
