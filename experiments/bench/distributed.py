"""Encoding on engines for data frames, with workers of their own: the bits of one process, also where one dies."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import LearnedConfig, LearnedEncoder, MultiVectors
from muvera.distributed import EncodeDocuments, sample_files

from ..datasets.collection import Collection

__all__ = ["COLUMNS", "ENGINES", "encode_distributed"]

#: Of a row, in words.
COLUMNS = {
    "engine": "engine",
    "documents": "documents",
    "workers": "workers",
    "killed": "worker killed",
    "equal": "equal bits",
    "seconds": "seconds",
}

FILES, WORKERS = 4, 2


class DiesOnce(EncodeDocuments):
    """An encoder whose first worker is killed in the middle of its work."""

    def __init__(self, encoder: str, mark: str) -> None:
        super().__init__(encoder)
        self._mark = Path(mark)

    def __call__(self, table: Any) -> Any:
        """Return the table with its vectors; kill this process the first time."""
        try:
            self._mark.touch(exist_ok=False)
        except FileExistsError:
            return super().__call__(table)
        os.kill(os.getpid(), signal.SIGKILL)
        return None


def encode_distributed(
    collection: Collection, engines: list[str], dimension: int = 512
) -> Iterator[dict[str, Any]]:
    """Yield a row for each engine: whether its vectors are those of one process, and how long it took."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    documents = collection.documents
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/part-{i}.parquet" for i in range(FILES)]
        for path, rows in zip(paths, np.array_split(np.arange(len(documents)), FILES), strict=True):
            part = documents[rows]
            # Spark reads no half floats.
            part = MultiVectors(np.asarray(part.tokens, np.float32), part.offsets)
            pq.write_table(pa.table({"id": rows, "tokens": part.to_arrow()}), path, row_group_size=100)
        config = LearnedConfig(dimension=documents.dimension, vector_dimension=dimension)
        encoder = LearnedEncoder(config).fit(sample_files(paths))
        encoder.save(f"{folder}/encoder")
        expected = encoder.encode_documents(documents)
        for engine in engines:
            for killed in (False, True) if engine == "ray" else (False,):
                begun = time.perf_counter()
                found = ENGINES[engine](
                    paths, f"{folder}/encoder", f"{folder}/died-{engine}" if killed else ""
                )
                yield {
                    "engine": engine,
                    "documents": len(documents),
                    "workers": WORKERS,
                    "killed": "yes" if killed else "no",
                    "equal": "yes" if np.array_equal(found, expected) else "NO",
                    "seconds": time.perf_counter() - begun,
                }


def _vectors(table: Any) -> NDArray[np.float32]:
    """Return the vectors of a table in the order of its ids."""
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    rows: NDArray[np.float32] = np.asarray(flat, np.float32).reshape(len(table), -1)
    return rows[np.argsort(table["id"].to_numpy())]


def _ray(paths: list[str], encoder: str, mark: str) -> NDArray[np.float32]:
    import pyarrow as pa
    import ray

    os.environ.setdefault("RAY_DISABLE_IMPORT_WARNING", "1")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=400_000_000,
        configure_logging=False,
        log_to_driver=False,
        _system_config={"enable_metrics_collection": False},
        runtime_env={"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}},
    )
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        # Reading, too, waits for ever where actors leave it no whole core.
        encoded = ray.data.read_parquet(paths, num_cpus=0.4).map_batches(
            DiesOnce if mark else EncodeDocuments,
            fn_constructor_args=(encoder, mark) if mark else (encoder,),
            batch_format="pyarrow",
            batch_size=100,
            # Two actors of a whole core each leave none for reading, and wait for ever on two cores.
            num_cpus=0.4,
            compute=ray.data.ActorPoolStrategy(size=WORKERS),
        )
        return _vectors(pa.concat_tables(list(encoded.iter_batches(batch_format="pyarrow"))))
    finally:
        ray.shutdown()


def _daft(paths: list[str], encoder: str, mark: str) -> NDArray[np.float32]:
    import daft
    import pyarrow as pa

    dimension = 512

    @daft.cls(max_concurrency=WORKERS)
    class Encode:
        def __init__(self, folder: str) -> None:
            self._encode = EncodeDocuments(folder)

        @daft.method.batch(return_dtype=daft.DataType.fixed_size_list(daft.DataType.float32(), dimension))  # type: ignore[untyped-decorator]
        def __call__(self, tokens: Any) -> Any:
            return self._encode(pa.table({"tokens": tokens.to_arrow()}))["vector"].combine_chunks()

    frame = daft.read_parquet(paths)
    return _vectors(frame.select(frame["id"], Encode(encoder)(frame["tokens"]).alias("vector")).to_arrow())


def _spark(paths: list[str], encoder: str, mark: str) -> NDArray[np.float32]:
    import pyarrow as pa
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session = (
        SparkSession.builder.master(f"local[{WORKERS}]").config("spark.ui.enabled", "false").getOrCreate()
    )

    kinds = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32()))])  # no list of fixed size

    def encode(batches: Iterator[Any]) -> Iterator[Any]:
        encode_documents = EncodeDocuments(encoder)
        for batch in batches:
            table = encode_documents(pa.Table.from_batches([batch])).select(["id", "vector"])
            yield from table.cast(kinds).to_batches()

    try:
        frame = session.read.parquet(*paths).mapInArrow(encode, "id long, vector array<float>")
        table = frame.toArrow()
    finally:
        session.stop()
    return _vectors(table)


#: By name: from files and an encoder's folder to the vectors in the order of ids.
ENGINES: dict[str, Callable[[list[str], str, str], NDArray[np.float32]]] = {
    "ray": _ray,
    "daft": _daft,
    "spark": _spark,
}
