"""``muvera info``: what is in a folder or file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from ..utils.checks import counted
from .options import Format, Json, ReaderOption
from .output import megabytes, print_json

__all__ = ["info"]

# The database's property that names the encoder of an index's texts.
_TEXT_ENCODER = "text_encoder"


def info(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="An index, an encoder's folder, or token embeddings.")
    ],
    format: Format = None,
    part: Annotated[
        str | None, typer.Option(help="docs (the default) or queries, where embeddings have both.")
    ] = None,
    option: ReaderOption = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read an index in full and compare every checksum.")
    ] = False,
    survey: Annotated[
        bool, typer.Option("--survey", help="Read embeddings in full: norms, empty texts, bad numbers.")
    ] = False,
    json_: Json = False,
) -> None:
    """Describe an index or token embeddings.

    Of an index: sizes, settings, the share of the best vectors that its graph finds, and the
    share of the exact best documents that are candidates.  Of embeddings: format and size.

    \b
    Example:
      muvera info my.index
    """
    from ..index.manifest import MANIFEST
    from .encoder_folder import is_encoder_folder

    if format is None and (path / MANIFEST).is_file():
        facts, text = _index(path, verify)
    elif format is None and is_encoder_folder(path):
        facts, text = _encoder(path)
    else:
        facts, text = _embeddings(path, format, part, option, survey)
    if json_:
        print_json({"path": str(path), **facts})
    else:
        typer.echo(f"{path}: {text}")


def _index(path: Path, verify: bool) -> tuple[dict[str, Any], str]:
    from ..index.manifest import TEXTS, read_manifest
    from ..index.muvera_index import MuveraIndex
    from ..texts.database import DocumentDatabase
    from .index import described, without_exact

    loaded = MuveraIndex.load(path, verify_files=True if verify else None)
    facts = loaded.info()
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    files = len(read_manifest(path)["files"])
    file = loaded._attachment(TEXTS)
    texts = None
    if file is not None:
        with closing(DocumentDatabase.open(file)) as database:
            texts = {"texts": len(database), "text_encoder": database.property(_TEXT_ENCODER)}
    empty, deleted = facts.empty_documents, facts.deleted_documents
    others = (f", {empty:,} of them without tokens" if empty else "") + (
        f", {deleted:,} deleted" if deleted else ""
    )
    lines = [
        f"an index of {counted(facts.documents, 'document')}{others}",
        *([f"texts       {texts['texts']:,}, encoded by {texts['text_encoder']}"] if texts else []),
        f"tokens      {facts.tokens:,} of {counted(facts.dimension, 'dimension')}",
        f"kept        {_kept(facts.token_codec)}",
        f"search      {described(facts)}",
        f"size        {megabytes(facts.bytes_per_document)} per document{without_exact(facts)}, "
        f"{megabytes(size)} on the disk",
        f"settings    {_settings(facts.vectors or {}, ('space', 'm', 'ef_construction', 'ef'))}"
        + (f"exact up to {facts.exact_tokens:,} tokens" if facts.exact_tokens else "never exact"),
        f"encoder     {_settings(facts.encoder, tuple(facts.encoder)).rstrip(', ')}",
        *(f"warning     {text}" for text in facts.warnings),
        *([f"verified    {counted(files, 'file')}, every checksum agrees"] if verify else []),
    ]
    return {
        "kind": "index",
        "bytes_on_disk": size,
        "verified": verify,
        **(texts or {}),
        **facts.to_dict(),
    }, "\n".join(lines)


def _kept(codec: dict[str, Any]) -> str:
    """Return how tokens are kept, and in how many bytes."""
    text = f"{codec['bytes_per_token']:,} bytes per token ({codec['codec']})"
    exact = codec["exact_bytes_per_token"]
    return f"{text}, and {exact:,} bytes per exact token" if exact else text


def _settings(values: dict[str, Any], names: tuple[str, ...]) -> str:
    return "".join(f"{name}={values[name]}, " for name in names if values.get(name) is not None)


def _encoder(path: Path) -> tuple[dict[str, Any], str]:
    from .encoder_folder import load_encoder

    config = load_encoder(path).config
    facts: dict[str, Any] = {
        "kind": "encoder",
        "encoder": {**config.to_dict(), "vector_dimension": config.vector_dimension},
    }
    values = facts["encoder"]
    return facts, f"an encoder\nencoder     {_settings(values, tuple(values)).rstrip(', ')}"


def _embeddings(
    path: Path, format: str | None, part: str | None, option: list[str] | None, survey: bool
) -> tuple[dict[str, Any], str]:
    from ..convert import survey as read_all
    from .sources import number_of, open_documents

    source = open_documents(path, format, part, option)
    if survey:
        report = read_all(source)
        return {
            "kind": "embeddings",
            **number_of(source),
            "survey": report.to_dict(),
        }, "token embeddings, read in full\n" + report.text
    facts = number_of(source)
    quantized = f", {source.nbits} bits a coordinate" if source.nbits else ""
    counts = ", ".join(
        f"{count:,} {unit}" if count is not None else f"{unit} known only after reading (--survey)"
        for count, unit in ((source.num_documents, "documents"), (source.num_tokens, "tokens"))
    )
    kind = f"lossy{quantized}" if source.lossy else "exact"
    return {"kind": "embeddings", **facts}, f"{source.name} ({kind}): {counts}, {source.dimension} dimensions"
