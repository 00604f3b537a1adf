"""Kernels use tile registers only if the system lets the process do so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from muvera.kernels.jit import HAS_TILES

# Prints whether there are tile registers, and scores of coded texts.
SCORES = """
import numpy as np
from muvera.kernels.jit import HAS_TILES
from muvera.reranking.codecs import CODECS
from muvera.reranking.coded_vectors import CodedVectors, score_coded
rng = np.random.default_rng(0)
tokens = rng.standard_normal((90, 20)).astype(np.float32)
codec = CODECS["int8"](tokens)
texts = CodedVectors.from_lengths(codec, codec.encode(tokens), [3, 40, 47])
scores = score_coded(tokens[:5], codec, [(texts, np.arange(3))], 1)
print(HAS_TILES, scores.tobytes().hex())
"""

# Linux refuses the permission if the stack of signal handlers is too small for the
# registers.
SMALL_STACK = """
import ctypes
class Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(6000)
stack = Stack(ctypes.cast(memory, ctypes.c_void_p), 0, len(memory))
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0
"""


def printed(code: str, cache: Path) -> list[str]:
    """Return what `code` prints, with compiled kernels in the folder `cache`."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "MUVERA_KERNEL_CACHE": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    return ended.stdout.split()


needs_tiles = pytest.mark.skipif(not HAS_TILES, reason="the processor or the system has no AMX")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@needs_tiles
def test_a_process_without_permission_uses_no_cached_code_with_tiles(cache: Path) -> None:
    tiles, scores = printed(SCORES, cache)
    assert tiles == "True"
    assert printed(SMALL_STACK + SCORES, cache) == ["False", scores]


@needs_tiles
def test_forks_and_threads_use_tiles(cache: Path) -> None:
    code = (
        SCORES
        + """
import os, threading
def work():
    print(score_coded(tokens[:5], codec, [(texts, np.arange(3))], 1).tobytes().hex(), flush=True)
thread = threading.Thread(target=work)
thread.start()
thread.join()
child = os.fork()
if child == 0:
    work()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    )
    _, *scores = printed(code, cache)
    assert len(scores) == 3 and len(set(scores)) == 1
