"""MUVERA (arXiv 2405.19504): Fixed Dimensional Encodings of ColBERT embeddings.

SimHash or landmarks partition the token vectors of a text.  The tokens of each cell are
aggregated and projected, which makes one vector, the FDE.  An exact search, a scan of
codes or hnswlib finds candidates, and exact Chamfer similarity (MaxSim) ranks them.

It is made for three uses:

- Convert existing ColBERT embeddings: :class:`FDEEncoder`, :class:`MuveraIndex`.
- Use the mathematics: :func:`chamfer`, :mod:`muvera.fde`, :mod:`muvera.theory`.
- Compare recall and latency: :func:`diagnose`, :func:`tune`, :func:`audit`.

:class:`TextIndex` searches texts.

Examples
--------
>>> import numpy as np
>>> from muvera import FDEEncoder, MuveraIndex
>>> rng = np.random.default_rng(0)
>>> documents = [rng.normal(size=(20, 128)) for _ in range(30)]
>>> FDEEncoder.preset("paper", 128).encode_documents(documents).shape
(30, 10240)
>>> index = MuveraIndex.build(documents, "paper", exact_tokens=0)
>>> index.search([documents[7][:9]], k=1)[0].ids
array([7])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import convert
    from .data.multivectors import MultiVectors
    from .data.ranking import Ranking
    from .diagnostics.audit import audit
    from .diagnostics.diagnose import diagnose
    from .diagnostics.recall_meter import RecallMeter
    from .fde import theory
    from .fde.config import FDEConfig
    from .fde.encoder import FDEEncoder
    from .fde.files import load_encoder
    from .fde.steps import CountSketch, Covariance, Landmarks, LearnedProjection, MeanToken, SimHash
    from .index.hybrid import hybrid_search
    from .index.muvera_index import MuveraIndex
    from .index.settings import IndexInfo, IndexSettings
    from .mips.settings import HNSWSettings
    from .pages.page_index import PageIndex
    from .reranking.chamfer import Explanation, chamfer, chamfer_matrix, explain, rerank, top_k
    from .reranking.fusion import fuse
    from .reranking.sparse import SparseVectors
    from .texts.adapt import adapt
    from .texts.encoders.base import TextEncoder
    from .texts.encoders.registry import load_text_encoder
    from .texts.hit import Hit
    from .texts.text_index import TextIndex
    from .tuning.tune import tune

__version__ = "0.1.0"

# Public names and their modules.  A module is imported when one of its names is first
# used, so that the command line answers ``--help`` without loading or compiling
# anything.
_HOMES = {
    "CountSketch": "fde.steps",
    "Covariance": "fde.steps",
    "Explanation": "reranking.chamfer",
    "FDEConfig": "fde.config",
    "FDEEncoder": "fde.encoder",
    "HNSWSettings": "mips.settings",
    "Hit": "texts.hit",
    "IndexInfo": "index.settings",
    "IndexSettings": "index.settings",
    "Landmarks": "fde.steps",
    "LearnedProjection": "fde.steps",
    "MeanToken": "fde.steps",
    "MultiVectors": "data.multivectors",
    "MuveraIndex": "index.muvera_index",
    "PageIndex": "pages.page_index",
    "Ranking": "data.ranking",
    "RecallMeter": "diagnostics.recall_meter",
    "SimHash": "fde.steps",
    "SparseVectors": "reranking.sparse",
    "TextEncoder": "texts.encoders.base",
    "TextIndex": "texts.text_index",
    "adapt": "texts.adapt",
    "audit": "diagnostics.audit",
    "chamfer": "reranking.chamfer",
    "chamfer_matrix": "reranking.chamfer",
    "diagnose": "diagnostics.diagnose",
    "explain": "reranking.chamfer",
    "fuse": "reranking.fusion",
    "hybrid_search": "index.hybrid",
    "load_encoder": "fde.files",
    "load_text_encoder": "texts.encoders.registry",
    "rerank": "reranking.chamfer",
    "top_k": "reranking.chamfer",
    "tune": "tuning.tune",
}


def __getattr__(name: str) -> object:
    """Import a public name or a subpackage when it is first used (PEP 562)."""
    if name in _HOMES:
        value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name == "theory":
        value = import_module(f"{__name__}.fde.theory")
    elif name in _subpackages():
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*__all__, *_subpackages()})


def _subpackages() -> list[str]:
    from pkgutil import iter_modules

    return [module.name for module in iter_modules(__path__)]


__all__ = [
    "CountSketch",
    "Covariance",
    "Explanation",
    "FDEConfig",
    "FDEEncoder",
    "HNSWSettings",
    "Hit",
    "IndexInfo",
    "IndexSettings",
    "Landmarks",
    "LearnedProjection",
    "MeanToken",
    "MultiVectors",
    "MuveraIndex",
    "PageIndex",
    "Ranking",
    "RecallMeter",
    "SimHash",
    "SparseVectors",
    "TextEncoder",
    "TextIndex",
    "__version__",
    "adapt",
    "audit",
    "chamfer",
    "chamfer_matrix",
    "convert",
    "diagnose",
    "explain",
    "fuse",
    "hybrid_search",
    "load_encoder",
    "load_text_encoder",
    "rerank",
    "theory",
    "top_k",
    "tune",
]
