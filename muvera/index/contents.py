"""IndexContents: what an index contains at one moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..fde.config import DEFAULT_PRESET, FDEConfig
from ..fde.encoder import FDEEncoder
from ..reranking.codecs import TokenCodec
from ..utils.checks import counted
from .calibration import BEST, CANDIDATES, FirstStage
from .candidates import CandidateSearch
from .generations import Generation
from .id_map import IdMap
from .settings import IndexInfo, IndexSettings
from .token_store import DocumentTokens, Rows

#: Minimum number of documents to fit an encoder with maps: maps fitted on fewer
#: transfer poorly.
MIN_FIT_DOCUMENTS = 256


def default_preset(documents: MultiVectors) -> str:
    """Return the preset for documents like these, if the user named none.

    For documents of one token, Chamfer similarity is the inner product of the summed
    query tokens and this token, so "mean" ranks exactly.
    """
    single = len(documents) >= MIN_FIT_DOCUMENTS and documents.lengths.max() == 1
    return "mean" if single else DEFAULT_PRESET


@dataclass(frozen=True, eq=False)
class IndexContents:
    """Ids, tokens and vectors of documents, by row number.

    Immutable.  :class:`.change.Change` makes other contents, which share most arrays
    with these.  Row numbers are unique until a rebuild.  A change must start from the
    latest contents.

    Parameters
    ----------
    config : FDEConfig
        How to make vectors if no encoder is given.
    settings : IndexSettings
        How to store tokens and search vectors.
    ids : IdMap
        The id of each row, and which rows are deleted.
    tokens : DocumentTokens
        The tokens of all rows, or their codes.
    given_encoder : FDEEncoder, optional
        The fitted encoder to make vectors with, once they are needed.  None: fit one.
    candidates : CandidateSearch, optional
        None while searches read all tokens.
    write_texts : callable, optional
        Writes the texts of the documents to a file, as a part of every save; for a
        :class:`muvera.TextIndex`.
    generations : mapping of Path to Generation
        For each folder, the generation that was last read or written.
    """

    config: FDEConfig
    settings: IndexSettings
    ids: IdMap
    tokens: DocumentTokens
    given_encoder: FDEEncoder | None = None
    candidates: CandidateSearch | None = None
    write_texts: Callable[[IdMap, Path], object] | None = None
    generations: Mapping[Path, Generation] = field(default_factory=dict)
    # Computed at the first use.  A cached_property has a lock before Python 3.12, which
    # a fork could leave held.
    _searchable: list[tuple[Rows, int]] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def empty(
        cls,
        config: FDEConfig,
        settings: IndexSettings,
        encoder: FDEEncoder | None = None,
        codec: TokenCodec | None = None,
    ) -> IndexContents:
        """Return contents without documents.

        An `encoder` is a fitted one, and a `codec` makes the index store tokens as its
        codes.
        """
        return cls(config, settings, IdMap(), DocumentTokens(settings, config.dimension, codec), encoder)

    # -- facts ----------------------------------------------------------------

    @property
    def encoder(self) -> FDEEncoder | None:
        """The encoder in use, or the given one if the collection is still small."""
        return self.given_encoder if self.candidates is None else self.candidates.encoder

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, int64 (n,)."""
        return self.tokens.lengths

    @property
    def searchable(self) -> tuple[Rows, int]:
        """Live rows with tokens, int64 (n,), ascending, and their number of tokens.

        These are the tokens that a search of all rows reads: means, if there are any.
        """
        if not self._searchable:
            live = self.ids.live
            lengths = self.tokens.coarse_lengths[live]
            self._searchable.append((live[lengths > 0], int(lengths.sum())))
        return self._searchable[0]

    @property
    def needs_vectors(self) -> bool:
        """True if there are too many tokens to read all, and no vectors yet.

        If tokens are rows of a table, all are read.
        """
        few = self.searchable[1] <= self.settings.exact_tokens
        return self.candidates is None and not few and self.tokens.table is None

    @property
    def needs_sample(self) -> bool:
        """True if making vectors has to fit an encoder on many documents first."""
        return self.given_encoder is None and self.config.needs_fit_sample

    @property
    def has_sample(self) -> bool:
        """True if there are enough documents to fit an encoder on."""
        return len(self.searchable[0]) >= MIN_FIT_DOCUMENTS

    @property
    def first_stage(self) -> FirstStage:
        """The recall of the first stage, as last measured with windows of documents."""
        candidates = self.candidates
        if candidates is None or candidates.windows is None:
            return FirstStage()
        return candidates.windows.first_stage(self.searchable[0], candidates.fitted_rows)

    @property
    def drift_warning(self) -> str | None:
        """A warning if documents newer than the encoder's fit have a lower recall.

        Of all of them together, or of some.
        """
        if self.candidates is None or not self.config.needs_fit_sample:
            return None
        return self.first_stage.warning or self.candidates.drift_warning

    @property
    def kind(self) -> str:
        """What a search reads: "all tokens", or the kind of vector search."""
        return "all tokens" if self.candidates is None else self.candidates.search.kind

    def info(self) -> IndexInfo:
        """See :meth:`muvera.MuveraIndex.info`."""
        live = len(self.ids)
        filled, tokens = self.searchable
        rows = len(self.ids.live)
        codec = self.tokens.info()
        vectors = None if self.candidates is None else self.candidates.search.info()
        first_stage, added, _ = self.first_stage
        per_document = tokens * codec["bytes_per_token"] / max(1, live)
        return IndexInfo(
            documents=live,
            empty_documents=live - len(np.unique(self.ids.first_rows(filled))),
            deleted_documents=self._deleted,
            tokens=int(self.lengths[filled].sum()),
            dimension=self.config.dimension,
            search=self.kind,
            exact_tokens=self.settings.exact_tokens,
            encoder={**self.config.to_dict(), "vector_dimension": self.config.vector_dimension},
            vectors=vectors,
            token_codec=codec,
            first_stage=first_stage,
            added=added,
            candidates=None if self.candidates is None else self.candidates.enough(BEST),
            bytes_per_document=round(per_document + (vectors["bytes_per_vector"] if vectors else 0)),
            warnings=tuple(self._warnings()),
            parts=rows if rows > live else None,
        )

    @property
    def _deleted(self) -> int:
        return len(self.tokens) - len(self.ids.live)

    def _warnings(self) -> list[str]:
        candidates = self.candidates
        count = len(self.searchable[0])
        warnings = []
        if candidates is not None and candidates.fitted_on_too_few:
            warnings.append(
                f"The encoder was fitted on only {counted(candidates.fitted_on, 'document')}, but the "
                f"index now has {count:,}. In Python, rebuild() fits it again."
            )
        measured = self.first_stage.everything
        low_recall = self.drift_warning or (None if measured is None else measured.warning)
        if low_recall is not None:
            count = 0 if candidates is None else candidates.enough(BEST)
            more = f" By default, a search ranks {count:,} instead." if count > CANDIDATES else ""
            warnings.append(f"{low_recall}{more}")
        if self.needs_vectors:
            warnings.append(
                f"The index has too few documents to fit the encoder ({count}), so searches read all "
                f"tokens. Add documents until there are {MIN_FIT_DOCUMENTS}, or give an encoder that was "
                "fitted on others."
            )
        if self._deleted > max(100, len(self.ids) // 2):
            warnings.append(
                f"{self._deleted} deleted documents still take memory. In Python, rebuild() frees it."
            )
        return warnings
