"""``muvera index``: build an index of token embeddings."""

from __future__ import annotations

import time
from typing import Annotated, Any

from typer import Option

import muvera

from .options import (
    BackendOption,
    ConfigOption,
    EncoderOption,
    FormatOption,
    JsonOption,
    OutArgument,
    OverwriteOption,
    ReaderOptions,
    SourceArgument,
    ThreadsOption,
    TokensOption,
    only_given,
)
from .printing import WARNING, megabytes, progress_bar, seconds, show, wrapped


def index(
    source: SourceArgument,
    out: OutArgument,
    format: FormatOption = None,
    option: ReaderOptions = None,
    encoder: EncoderOption = None,
    config: ConfigOption = None,
    backend: BackendOption = None,
    exact_tokens: Annotated[
        int | None, Option(help="Search up to N tokens exactly (default: 20,000; 0: never).")
    ] = None,
    tokens: TokensOption = None,
    keep_exact: Annotated[bool, Option("--keep-exact", help="Store exact tokens beside codes.")] = False,
    keep_codes: Annotated[bool, Option("--keep-codes", help="Keep the codes of a PLAID index.")] = False,
    threads: ThreadsOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Build an index of token embeddings.

    SOURCE is read in batches, so memory use is bounded.  OUT is created only when it is
    complete.

    \b
    Example: index your own arrays, one (tokens, dimension) array per document.
      python -c "import numpy as np, muvera; r = np.random.default_rng(0); \\
      muvera.MultiVectors.from_arrays(r.normal(size=(50, 9, 32))).save('docs')"
      muvera index docs docs.index
      muvera search docs.index docs -k 3
    """
    from ..index.generations import Destination, require_place
    from ..utils.checks import as_path
    from .sources import announce_tokens, choose_encoder, fit_for_index, open_documents, stream

    require_place(as_path(out, "OUT"), overwrite)
    opened = open_documents(source, format, option)
    chosen = choose_encoder(encoder, config, opened.dimension)
    settings = muvera.IndexSettings.of(
        **only_given(backend=backend, exact_tokens=exact_tokens, tokens=tokens, keep_exact=keep_exact)
    )
    begun = time.perf_counter()
    announce_tokens(opened, chosen, settings, threads)
    fitted = fit_for_index(chosen, opened, settings.exact_tokens, threads)
    with progress_bar(opened.num_documents, "documents", "indexing") as advance:
        how: dict[str, Any] = {"threads": threads, "progress": advance}
        if keep_codes:
            from_plaid = muvera.MuveraIndex.from_plaid
            index = from_plaid(opened, fitted, settings=settings, path=out, overwrite=overwrite, **how)
        else:
            batches = ((batch, None) for batch in stream(opened))
            place = Destination(as_path(out).resolve(), overwrite)
            how["fitted_on_these"] = fitted is not chosen
            index = muvera.MuveraIndex.from_batches(batches, fitted, settings, place, **how)
        built = index.info()
    duration = time.perf_counter() - begun
    facts = {"index": str(out), "source": str(source), "seconds": round(duration, 3), **built.to_dict()}
    text = wrapped(f"{out}: {_built(built)}; in {seconds(duration)}")
    empty = [_NO_TOKENS] if built.documents and not built.tokens else []
    show(json_, facts, text, *(WARNING + warning for warning in [*built.warnings, *empty]))


_NO_TOKENS = (
    "The documents have no tokens, so searches find nothing. Vectors of zeros count as padding: check SOURCE."
)


def _built(facts: muvera.IndexInfo) -> str:
    """Describe the size of an index, its search, and the recall of its candidates."""
    from ..utils.checks import counted

    text = (
        f"{counted(facts.documents, 'document')}, {counted(facts.tokens, 'token')} of "
        f"{counted(facts.dimension, 'dimension')}, {megabytes(facts.bytes_per_document)} per document"
    )
    if facts.token_codec["exact_bytes_per_token"]:
        text += " without exact tokens"
    if facts.vectors is None:
        return f"{text}; searches read all tokens"
    encoder, first = facts.encoder, facts.first_stage
    text += f"; searches use FDEs of {encoder['vector_dimension']:,} floats"
    if "num_landmarks" in encoder:
        covariance = "with" if encoder["moments"] == "covariance" else "without"
        text += f", {encoder['num_landmarks']:,} landmarks {covariance} covariance"
    text += f" ({facts.search})"
    if first is not None:
        text += f"; {first.candidates} candidates contain {first.recall:.1%} of the exact top {first.k}"
    if facts.candidates is not None:
        text += f", and searches rank {facts.candidates:,} by default"
    return text
