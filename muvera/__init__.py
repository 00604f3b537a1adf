"""Late-interaction retrieval with an ordinary inner-product index."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import convert
    from .data.multivectors import MultiVectors
    from .data.ranking import Ranking
    from .diagnostics import theory
    from .diagnostics.diagnose import diagnose
    from .diagnostics.diagnosis import Diagnosis
    from .encoders.fde.config import FDEConfig
    from .encoders.fde.encoder import FDEEncoder
    from .encoders.learned.config import LearnedConfig
    from .encoders.learned.encoder import LearnedEncoder
    from .encoders.moments.config import MeanConfig
    from .encoders.moments.encoder import MeanEncoder
    from .encoders.registry import load_encoder
    from .index.hybrid import hybrid_search
    from .index.muvera_index import MuveraIndex
    from .mips.document_vectors import DenseVectors, SparseVectors
    from .reranking.ball_carving import carve_queries
    from .reranking.chamfer import Explanation, chamfer, chamfer_matrix, explain, rerank, top_k
    from .reranking.fusion import fuse, tune_weights
    from .reranking.spans import rank_spans, score_spans
    from .reranking.token_weights import inverse_document_frequency, weight_queries
    from .texts.encoders.registry import load_text_encoder
    from .texts.text_index import TextIndex
    from .tuning.plot import plot_tuning
    from .tuning.result import Tuning
    from .tuning.tune import tune

__version__ = "0.1.0"

#: Public names to the modules that have them; each is imported when it is first named, so that
#: the command line answers ``--help`` without compiling or loading anything.
_HOMES = {
    "DenseVectors": "mips.document_vectors",
    "Diagnosis": "diagnostics.diagnosis",
    "Explanation": "reranking.chamfer",
    "FDEConfig": "encoders.fde.config",
    "FDEEncoder": "encoders.fde.encoder",
    "LearnedConfig": "encoders.learned.config",
    "LearnedEncoder": "encoders.learned.encoder",
    "MeanConfig": "encoders.moments.config",
    "MeanEncoder": "encoders.moments.encoder",
    "MultiVectors": "data.multivectors",
    "MuveraIndex": "index.muvera_index",
    "Ranking": "data.ranking",
    "SparseVectors": "mips.document_vectors",
    "TextIndex": "texts.text_index",
    "Tuning": "tuning.result",
    "carve_queries": "reranking.ball_carving",
    "chamfer": "reranking.chamfer",
    "chamfer_matrix": "reranking.chamfer",
    "diagnose": "diagnostics.diagnose",
    "explain": "reranking.chamfer",
    "fuse": "reranking.fusion",
    "hybrid_search": "index.hybrid",
    "inverse_document_frequency": "reranking.token_weights",
    "load_encoder": "encoders.registry",
    "load_text_encoder": "texts.encoders.registry",
    "plot_tuning": "tuning.plot",
    "rank_spans": "reranking.spans",
    "rerank": "reranking.chamfer",
    "score_spans": "reranking.spans",
    "top_k": "reranking.chamfer",
    "tune": "tuning.tune",
    "tune_weights": "reranking.fusion",
    "weight_queries": "reranking.token_weights",
}

#: Public modules.
_MODULES = {"convert": "convert", "theory": "diagnostics.theory"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"{__name__}.{_MODULES[name]}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "DenseVectors",
    "Diagnosis",
    "Explanation",
    "FDEConfig",
    "FDEEncoder",
    "LearnedConfig",
    "LearnedEncoder",
    "MeanConfig",
    "MeanEncoder",
    "MultiVectors",
    "MuveraIndex",
    "Ranking",
    "SparseVectors",
    "TextIndex",
    "Tuning",
    "__version__",
    "carve_queries",
    "chamfer",
    "chamfer_matrix",
    "convert",
    "diagnose",
    "explain",
    "fuse",
    "hybrid_search",
    "inverse_document_frequency",
    "load_encoder",
    "load_text_encoder",
    "plot_tuning",
    "rank_spans",
    "rerank",
    "score_spans",
    "theory",
    "top_k",
    "tune",
    "tune_weights",
    "weight_queries",
]
