"""Print a checksum of each kind of result.

`diff` compares the checksums of two processors, or of three ways to compile for one.

python .ci/kernel_bits.py [host|avx2|plain] [PART...]: for all instructions of this
processor (the default), for x86 with AVX2 but not AVX-512, or for x86 without both.
PART is scores, encoders, fitted, indexes, tokens or plaid.
"""

import hashlib
import os
import sys
import tempfile

MODES = {"avx2": "+avx2,+avx,+fma,+f16c,+bmi,+bmi2,+sse4.2,+popcnt,+lzcnt", "plain": "+sse4.2,+popcnt"}

mode = sys.argv[1] if len(sys.argv) > 1 else "host"
if mode in MODES or "NUMBA_CACHE_DIR" not in os.environ:
    os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()
if mode in MODES:
    os.environ |= {"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": MODES[mode]}
    from llvmlite import binding

    # The kernels choose their intrinsics by these; numba compiles for the
    # environment's.
    allowed = {name[1:] for name in MODES[mode].split(",")}
    found = binding.get_host_cpu_features()
    for name in found:
        found[name] = found[name] and name in allowed
    binding.get_host_cpu_features = lambda: found

import numpy as np

from muvera import MultiVectors, MuveraIndex, Ranking, chamfer_matrix, explain, top_k
from muvera.fde.config import FDEConfig
from muvera.fde.encoder import FDEEncoder
from muvera.reranking.codecs import ResidualCodec


def collection(seed: int, count: int, dimension: int) -> MultiVectors:
    """Return unit vectors in few directions.

    No function is called whose last bits differ between systems.
    """
    rng = np.random.default_rng(seed)
    words = rng.integers(-64, 65, (50, dimension))
    lengths = rng.integers(3, 40, count)
    tokens = words[rng.integers(0, 50, lengths.sum())] + rng.integers(-16, 17, (lengths.sum(), dimension))
    norms = np.sqrt((tokens * tokens).sum(axis=1, keepdims=True))
    return MultiVectors.from_flat((tokens / norms).astype(np.float32), lengths)


def show(name: str, *arrays: np.ndarray) -> None:
    """Print the checksum of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    print(f"{name:40} {digest.hexdigest()[:16]}", flush=True)


def show_rankings(name: str, rankings: list[Ranking]) -> None:
    """Print the checksum of ids and scores."""
    show(name, *(part for one in rankings for part in (one.ids, one.scores)))


def scores(documents: MultiVectors, queries: MultiVectors, dimension: int) -> None:
    """Show exact scores."""
    halves = MultiVectors.from_flat(documents.tokens.astype(np.float16), documents.lengths)
    for kind, texts in (("float32", documents), ("float16", halves)):
        show(f"chamfer_matrix {kind} {dimension}", chamfer_matrix(queries, texts))
        show_rankings(f"top_k {kind} {dimension}", top_k(queries, texts, 10))
    best = explain(queries[0], documents[0])
    show(f"explain {dimension}", best.tokens, best.similarities)


def encoders(documents: MultiVectors, queries: MultiVectors, dimension: int) -> None:
    """Show vectors of encoders that call no BLAS.

    They need no fit, or are fitted to one document.
    """
    for name in ("simhash", "paper", "reference", "mean"):
        encoder = FDEEncoder(FDEConfig.preset(name, dimension))
        if encoder.needs_fit:
            encoder = encoder.fit(documents[:1])
        show(f"{name} documents {dimension}", encoder.encode_documents(documents))
        show(f"{name} queries {dimension}", encoder.encode_queries(queries))


def fitted(documents: MultiVectors, queries: MultiVectors, dimension: int) -> None:
    """Show vectors of encoders whose fits call BLAS and LAPACK."""
    for name in ("moments", "fde"):
        encoder = FDEEncoder(FDEConfig.preset(name, dimension)).fit(documents)
        show(f"(fitted) {name} documents {dimension}", encoder.encode_documents(documents))


def indexes(documents: MultiVectors, queries: MultiVectors, dimension: int) -> None:
    """Show searches of two stages."""
    for backend in ("exact", "scan"):
        index = MuveraIndex.build(documents, "mean", backend=backend, exact_tokens=0)
        show_rankings(f"index {backend} {dimension}", index.search(queries, 10, candidates=40))


def tokens(documents: MultiVectors, queries: MultiVectors, dimension: int) -> None:
    """Show searches of codes; their codecs are fitted by BLAS."""
    for name in ("int8", "4bit", "2bit", "1bit"):
        index = MuveraIndex.build(documents, "mean", tokens=name, exact_tokens=0)
        show_rankings(f"(fitted) tokens {name} {dimension}", index.search(queries, 10, candidates=40))


def plaid(documents: MultiVectors, queries: MultiVectors, dimension: int) -> None:
    """Show decoded codes of PLAID indexes."""
    rng = np.random.default_rng(2)
    centroids = (rng.integers(-64, 65, (32, dimension)) / 512).astype(np.float32)
    for nbits in (1, 2, 4):
        weights = np.linspace(-0.125, 0.125, 2**nbits).astype(np.float32)
        codec = ResidualCodec.of_plaid(centroids, weights)
        numbers = rng.integers(0, 32, len(documents.tokens)).astype(np.int32)
        packed = rng.integers(0, 256, (len(numbers), dimension * nbits // 8)).astype(np.uint8)
        show(f"PLAID codes {nbits} {dimension}", codec.decode(codec.plaid_codes(numbers, packed)))


PARTS = {part.__name__: part for part in (scores, encoders, fitted, indexes, tokens, plaid)}

for dimension in (48, 128):
    for name in sys.argv[2:] or PARTS:
        PARTS[name](collection(0, 300, dimension), collection(1, 8, dimension), dimension)
