"""A process with limits that reads damaged samples.

It reads a path per line and writes the outcome per line.
"""

import json
import os
import pickle
import resource
import signal
import sys
import warnings
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from builders.text_encoders import HashEncoder

from muvera import MultiVectors, MuveraIndex, TextIndex, load_encoder
from muvera.convert import read
from muvera.distributed.shards import open_shards

#: Limits for one sample: processor seconds, seconds and bytes of address space.
PROCESSOR_SECONDS, SECONDS, MEMORY = 20, 300, 6 << 30

#: The promised types; a subclass is another library's error.
PROMISED = (ValueError, TypeError, MemoryError, ImportError)


def use(path: Path) -> None:
    """Read a sample and use it; raise AssertionError if the content is wrong."""
    if (path / "encoder.json").exists():
        encoder = load_encoder(path)
        arrays = [np.ones((count, encoder.config.dimension), np.float32) for count in (2, 1)]
        for encode in (encoder.encode_documents, encoder.encode_queries):
            vectors = encode(arrays, threads=1)
            assert vectors.dtype == np.float32 and vectors.ndim == 2
    elif (path / "shards.json").exists():
        shards = open_shards(path)
        for name in shards.names:
            use(path / name)
        assert len({id for name in shards.names for id in MuveraIndex.load(path / name)}) == 5, "other ids"
    elif (path / "manifest.json").exists() and list(path.rglob("texts.sqlite")):
        texts = TextIndex.load(path, HashEncoder(4))
        texts.search("a cat", k=3)
        assert len(list(texts)) == len(texts)
    elif (path / "manifest.json").exists():
        index = MuveraIndex.load(path, verify_files=True)
        query = np.ones((2, index.config.dimension), np.float32)
        index.search(query, k=3, threads=1)
        index.search(query, k=2, candidates=2, ids=index.ids[:2].tolist(), threads=1)
        index.tokens(index.ids.tolist())
        names = ["new"] if index.ids.dtype.kind in "UO" else None
        index.add(MultiVectors.from_arrays([query], ids=names), threads=1)
        index.search(query, k=3, threads=1)
    else:
        documents = read(path)
        offsets, tokens = documents.offsets, documents.tokens
        assert offsets[0] == 0 and offsets[-1] == len(tokens) and (np.diff(offsets) >= 0).all(), "offsets"
        assert np.isfinite(tokens).all(), "tokens that are not finite"
        names = [name for name, _ in groupby(documents.ids.tolist())]
        assert len(set(names)) == len(names), "an id that comes back"


def outcome_of(path: Path) -> tuple[str, str]:
    """Return "read", "refused" or what is wrong, and the message."""
    before = _listing(path)
    try:
        use(path)
        outcome = "read", ""
    except AssertionError as error:
        outcome = "unsound", str(error)
    except Exception as error:
        outcome = _judged(error, path)
    return outcome if _listing(path) == before else ("unsound", "reading changed the folder")


def _judged(error: Exception, path: Path) -> tuple[str, str]:
    text, kind = f"{type(error).__name__}: {error}", type(error)
    promised = kind in PROMISED or kind.__module__.startswith("muvera") or kind is pickle.UnpicklingError
    promised = promised or (isinstance(error, OSError) and not str(error).startswith("[Errno"))
    if not promised or not str(error).endswith((".", "?")) or "\n" in str(error):
        return "raw", text
    # Errors of foreign files name the file; those of the library's own folders need
    # not.
    named = str(path) in str(error) or (path / "manifest.json").exists() or (path / "encoder.json").exists()
    return ("refused" if named else "nameless"), text


def _listing(path: Path) -> list[str]:
    return sorted(str(entry) for entry in (path.rglob("*") if path.is_dir() else path.parent.iterdir()))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of libraries
    for line in sys.stdin:
        path = Path(json.loads(line))
        used = resource.getrusage(resource.RUSAGE_SELF)
        most = int(used.ru_utime + used.ru_stime) + PROCESSOR_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
        signal.alarm(SECONDS)  # ends the process, too
        os.chdir(path.parent)  # folder in which a pickle's program would create its file
        outcome: Any = outcome_of(path)
        signal.alarm(0)
        os.chdir("/")
        answers.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main()
