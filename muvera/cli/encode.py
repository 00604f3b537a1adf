"""``muvera encode``: one vector per text for other programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

import muvera

from .options import (
    ConfigOption,
    EncoderOption,
    FormatOption,
    JsonOption,
    OverwriteOption,
    ReaderOptions,
    SourceArgument,
    ThreadsOption,
)
from .printing import progress_bar, seconds, show, wrapped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def encode(
    source: SourceArgument,
    out: Annotated[Path, Argument(metavar="OUT", help="A new folder, or for parquet a file.")],
    side: Annotated[Literal["documents", "queries"], Option(help="What SOURCE contains.")] = "documents",
    to: Annotated[Literal["npy", "parquet", "opensearch"], Option(help="Output format.")] = "npy",
    encoder: EncoderOption = None,
    config: ConfigOption = None,
    save_encoder: Annotated[
        Path | None, Option(help="A new folder for the encoder (default: OUT.encoder, if it is fitted here).")
    ] = None,
    format: FormatOption = None,
    option: ReaderOptions = None,
    threads: ThreadsOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Write one vector per text for use in another search program.

    Compare documents and queries by inner product.  Most encoders are fitted to the
    documents and written to the folder OUT.encoder, or to --save-encoder.  Encode
    queries with --encoder and this folder.  OUT is created only when it is complete;
    npy is a folder with vectors.npy (texts, floats) and ids.json.

    \b
    Example: vectors of documents and queries from one encoder.
      muvera encode docs vectors
      muvera encode queries query-vectors --side queries --encoder vectors.encoder
    """
    from ..convert.pipeline import require_ending
    from ..convert.writers import VECTOR_WRITERS, Gathered, new_target
    from .sources import choose_encoder, fit, open_documents, open_queries, sized, stream, to_encoder

    _require_free(out, save_encoder, overwrite=overwrite)  # before the work
    require_ending(out, to, VECTOR_WRITERS)
    opened = (open_documents if side == "documents" else open_queries)(source, format, option)
    begun = time.perf_counter()
    ready = to_encoder(sized(choose_encoder(encoder, config, opened.dimension), opened))
    if ready.needs_fit and side == "queries":
        raise ValueError(
            "This encoder is fitted to documents, and queries cannot replace them. Give --encoder FOLDER: "
            "the documents' index, or the folder of encode --save-encoder. Or encode both sides with an "
            "encoder that is not fitted, such as --encoder paper."
        )
    # Without the fitted encoder, the vectors would be useless.
    beside = out.with_name(f"{out.name}.encoder") if ready.needs_fit and save_encoder is None else None
    _require_free(beside, overwrite=overwrite)
    fit(ready, opened, threads)
    if save_encoder is not None:
        ready.save(save_encoder, overwrite=overwrite)
    encode_side = ready.encode_documents if side == "documents" else ready.encode_queries
    floats = ready.config.vector_dimension
    counts = _Counts()
    with progress_bar(opened.num_documents, "texts", "encoding") as advance:
        vectors = _vectors(stream(opened), partial(encode_side, threads=threads), counts, advance)
        with new_target(out, overwrite, VECTOR_WRITERS[to].files) as path:
            VECTOR_WRITERS[to].write(Gathered(vectors, "The vectors"), path)
            if beside is not None:
                ready.save(beside, overwrite=overwrite)
    duration = time.perf_counter() - begun
    facts = {"out": str(out), "to": to, "side": side, "vectors": counts.texts, "dimension": floats}
    saved = beside or save_encoder
    facts |= {"encoder": None if saved is None else str(saved)}
    facts |= {"without_tokens": counts.empty, "config": ready.config.to_dict(), "seconds": round(duration, 3)}
    remarks = []
    if beside is not None:
        remarks.append(
            f"{beside}: the encoder, fitted to these documents. Encode queries for them with --encoder "
            f"{beside}. (--save-encoder names another folder.)"
        )
    text = f"{out}: {counts.text(side, floats)}, in {seconds(duration)}"
    show(json_, facts, wrapped(text), *remarks)


def _require_free(*paths: Path | None, overwrite: bool) -> None:
    """Raise FileExistsError if a file, or a folder with files, would be replaced.

    Raise ValueError for a URL.
    """
    from ..utils.checks import as_path

    for path in paths:
        if path is None:
            continue
        as_path(path, "OUT", "folder or file")
        if not overwrite and path.exists() and (path.is_file() or any(path.iterdir())):
            raise FileExistsError(f"{path} exists. Give another name, or --overwrite to replace it.")


@dataclass
class _Counts:
    """Numbers of encoded texts, and of texts without tokens."""

    texts: int = 0
    empty: int = 0

    def text(self, side: str, floats: int) -> str:
        """Describe the vectors of the texts, each of `floats` numbers."""
        from ..utils.checks import counted

        text = f"{counted(self.texts, 'vector')} of {side}, {counted(floats, 'float')} each"
        if self.empty:
            text += f", {self.empty:,} of them zero because their texts have no tokens"
        return text


def _vectors(
    batches: Iterable[muvera.MultiVectors],
    encode: Callable[[muvera.MultiVectors], NDArray[np.float32]],
    counts: _Counts,
    advance: Callable[[int], object],
) -> Iterator[muvera.MultiVectors]:
    """Yield the vectors of each batch with their ids, and count the texts."""
    import numpy as np

    for texts in batches:
        last = counts.texts + len(texts)
        ids = texts.ids if texts.has_ids else np.arange(counts.texts, last)
        counts.texts = last
        counts.empty += int((texts.lengths == 0).sum())
        yield muvera.MultiVectors.from_flat(encode(texts), np.ones(len(texts), np.int64), ids=ids)
        advance(len(texts))
