"""Kill the building of shards before each file operation, and build them again."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attack.changes import CONFIG
from attack.continued import killed
from muvera import FDEEncoder, IndexSettings, MultiVectors, MuveraIndex
from muvera.distributed.ray_index import merge
from muvera.distributed.shards import open_shards, prepare, write_shard

_COUNT = 2
_DOCUMENTS = MultiVectors.from_flat(
    np.random.default_rng(0).normal(size=(120, 12)).astype(np.float32), [3] * 40, ids=range(40)
)
_ENCODER = FDEEncoder(CONFIG).fit(_DOCUMENTS)


def _build(parquet: Path, root: Path) -> None:
    settings = IndexSettings.of(tokens="2bit", exact_tokens=0)
    for name in prepare(parquet, _ENCODER, root, _COUNT, settings).names:
        write_shard(str(root), name, 1)


def _contents(root: Path) -> Any:
    indexes = [MuveraIndex.load(root / name, verify_files=True) for name in open_shards(root).names]
    rankings = [index.search(_DOCUMENTS[:3], 5, candidates=20, threads=1) for index in indexes]
    answers = [merge(of_one_query, 5) for of_one_query in zip(*rankings, strict=True)]
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    return files, [(one.ids.tolist(), one.scores.tolist()) for one in answers]


def kill_shards(every: int) -> tuple[int, list[str]]:
    """Kill the build before each `every`-th operation, and build again.

    Return the number of kills, and the faults.
    """
    kills, faults = 0, list[str]()
    with tempfile.TemporaryDirectory() as parent:
        parquet, root = Path(parent, "a.parquet"), Path(parent, "shards")
        table = pa.table({"id": list(range(40)), "tokens": _DOCUMENTS.to_arrow()})
        pq.write_table(table, parquet, row_group_size=10)
        _build(parquet, root)
        expected, number = _contents(root), 1
        while True:
            shutil.rmtree(root)
            if not killed(number, lambda _: _build(parquet, root)):
                return kills, faults
            try:
                _build(parquet, root)
                assert _contents(root) == expected, f"other answers or files: {_contents(root)}"
            except Exception as error:
                faults.append(f"shards, operation {number}: {type(error).__name__}: {error}"[:500])
                root.mkdir(exist_ok=True)
            kills, number = kills + 1, number + every
