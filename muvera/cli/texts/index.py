"""``muvera texts index``: encode texts and build an index of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

import muvera

from ..options import (
    BackendOption,
    JsonOption,
    OutArgument,
    OverwriteOption,
    ThreadsOption,
    TokensOption,
    new_encoder,
    only_given,
)
from ..printing import megabytes, note, progress_bar, seconds, show, wrapped
from .changes import (
    DuplicatesOption,
    IdColumnOption,
    MetadataColumnsOption,
    TextColumnsOption,
    TextsArgument,
    TitleColumnOption,
    announce_texts,
    read_file,
)

if TYPE_CHECKING:
    from ...texts.encoders.base import CachedEncoder, TextEncoder


def index(
    source: TextsArgument,
    out: OutArgument,
    text: TextColumnsOption = None,
    id: IdColumnOption = None,
    metadata: MetadataColumnsOption = None,
    title: TitleColumnOption = None,
    duplicates: DuplicatesOption = None,
    encoder: Annotated[str, new_encoder("text")] = "static",
    tokens: TokensOption = None,
    vectors: Annotated[
        Literal["fde", "moments", "mean", "simhash", "paper", "reference"] | None,
        Option(help="Vectors of the first stage (default: fde; with static: none)."),
    ] = None,
    backend: BackendOption = None,
    overwrite: OverwriteOption = False,
    threads: ThreadsOption = None,
    json_: JsonOption = False,
) -> None:
    """Encode texts and build an index of them, with their metadata.

    An interrupted command continues if you run it again: encoded texts are kept in
    OUT.encoded until the index is complete, except with the encoder static.

    \b
    Example:
      muvera texts index pages.csv my-index --text title,body --id url
      muvera texts search my-index "a question" --where '{"year": {"$gte": 2000}}'
      muvera serve my-index
    """
    from ...index.generations import require_place
    from ...texts.encoders.base import count_long
    from ...texts.encoders.registry import load_text_encoder
    from ...texts.words import mostly_latin
    from ...utils.checks import as_path, counted

    require_place(as_path(out, "OUT"), overwrite)
    content = read_file(source, text, id, metadata, title, duplicates)
    begun = time.perf_counter()
    loaded = load_text_encoder(encoder)
    texts = content.texts or []
    if encoder == "static" and not mostly_latin(texts):
        note(
            "muvera: Most letters of the texts are not Latin, and the encoder static was made for English. "
            "Use a multilingual model, such as "
            "--encoder sentence-transformers:CHECKPOINT."
        )
    settings = only_given(tokens=tokens, backend=backend)
    # The static encoder is as fast as reading its vectors from a cache.
    cache = out.with_name(f"{out.name}.encoded")
    with nullcontext(loaded) if encoder == "static" else _cached(loaded, cache) as model:
        announce_texts(texts, model, vectors, **settings)
        with progress_bar(len(content.metadata), "texts", "encoding") as advance:
            built = muvera.TextIndex.build(
                texts, model, ids=content.ids, metadata=content.metadata, path=out,
                overwrite=overwrite, threads=threads, progress=advance,
                **only_given(vectors=vectors), **settings,
            )  # fmt: skip
        long = count_long(model, texts)
    duration = time.perf_counter() - begun
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    facts = {"index": str(out), "texts": len(built), "in_windows": long, "encoder": model.name, "bytes": size}
    name = model.name + (" (only for demos)" if encoder == "minilm" else "")
    line = (
        f"{out}: {counted(len(built), 'text')}, encoded by {name}, {megabytes(size)}, in {seconds(duration)}"
    )
    if long:
        verb = "is" if long == 1 else "are"
        line += f". {counted(long, 'text')} {verb} longer than the model reads and encoded in windows."
    show(json_, {**facts, "seconds": round(duration, 3)}, wrapped(line))


@contextmanager
def _cached(encoder: TextEncoder, cache: Path) -> Iterator[CachedEncoder]:
    """Store encoded texts in the file `cache` during a block, and after an error."""
    from ...texts.encoders.base import CachedEncoder
    from ...utils.checks import counted

    cached = CachedEncoder(encoder, cache)
    try:
        yield cached
    except BaseException:
        if len(cached):
            kept = counted(len(cached), "encoded text")
            note(f"muvera: {cache} keeps {kept}. Run the command again to continue.")
        cached.close(keep=True)
        raise
    cached.close(keep=False)
