"""Encoding on data-frame engines with worker processes: bit-identical to one process, even if a worker dies."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import LearnedConfig, LearnedEncoder, MultiVectors
from muvera.distributed import EncodeDocuments, sample_files

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..known_names import require_known
from .plumbing import Cache, Data, load_collections, print_rows

__all__ = ["COLUMNS", "ENGINES", "distributed", "encode_distributed"]

#: Keys of a row, and their headings.
COLUMNS = {
    "engine": "engine",
    "documents": "documents",
    "workers": "workers",
    "killed": "worker killed",
    "equal": "equal bits",
    "seconds": "seconds",
}

_FILES, _WORKERS, _FLOATS = 4, 2, 512


class DiesOnce(EncodeDocuments):
    """An encoder whose first worker is killed during its work; the worker creates the file `mark` before it dies."""

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


def encode_distributed(collection: Collection, engines: list[str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each engine: if its vectors equal those of one process, and its time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    documents = collection.documents
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/part-{i}.parquet" for i in range(_FILES)]
        for path, rows in zip(paths, np.array_split(np.arange(len(documents)), _FILES), strict=True):
            block = documents[rows]
            floats = MultiVectors(np.asarray(block.tokens, np.float32), block.offsets)  # Spark has no halves
            pq.write_table(pa.table({"id": rows, "tokens": floats.to_arrow()}), path, row_group_size=100)
        config = LearnedConfig(dimension=documents.dimension, vector_dimension=_FLOATS)
        encoder = LearnedEncoder(config).fit(sample_files(paths))
        encoder.save(f"{folder}/encoder")
        expected = encoder.encode_documents(documents)
        for engine in engines:
            for killed in (False, True) if engine == "ray" else (False,):
                began = time.perf_counter()
                mark = f"{folder}/died-{engine}" if killed else ""
                table = ENGINES[engine](paths, f"{folder}/encoder", mark)
                flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
                vectors: NDArray[np.float32] = np.asarray(flat, np.float32).reshape(len(table), -1)
                ordered = vectors[np.argsort(table["id"].to_numpy())]
                yield {
                    "engine": engine,
                    "documents": len(documents),
                    "workers": _WORKERS,
                    "killed": "yes" if killed else "no",
                    "equal": "yes" if np.array_equal(ordered, expected) else "NO",
                    "seconds": time.perf_counter() - began,
                }


def _ray(paths: list[str], encoder: str, mark: str) -> Any:
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
        # Less than a core each: two full-core actors leave none for reading on two cores, and the job hangs.
        encoded = ray.data.read_parquet(paths, num_cpus=0.4).map_batches(
            DiesOnce if mark else EncodeDocuments,
            fn_constructor_args=(encoder, mark) if mark else (encoder,),
            batch_format="pyarrow",
            batch_size=100,
            num_cpus=0.4,
            compute=ray.data.ActorPoolStrategy(size=_WORKERS),
        )
        return pa.concat_tables(list(encoded.iter_batches(batch_format="pyarrow")))
    finally:
        ray.shutdown()


def _daft(paths: list[str], encoder: str, mark: str) -> Any:
    import daft
    import pyarrow as pa

    @daft.cls(max_concurrency=_WORKERS)
    class Encode:
        def __init__(self, folder: str) -> None:
            self._encode = EncodeDocuments(folder)

        @daft.method.batch(return_dtype=daft.DataType.fixed_size_list(daft.DataType.float32(), _FLOATS))  # type: ignore[untyped-decorator]
        def __call__(self, tokens: Any) -> Any:
            return self._encode(pa.table({"tokens": tokens.to_arrow()}))["vector"].combine_chunks()

    frame = daft.read_parquet(paths)
    return frame.select(frame["id"], Encode(encoder)(frame["tokens"]).alias("vector")).to_arrow()


def _spark(paths: list[str], encoder: str, mark: str) -> Any:
    import pyarrow as pa
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(f"local[{_WORKERS}]").config("spark.ui.enabled", "false")
    session = builder.getOrCreate()
    schema = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32()))])  # no lists of fixed size

    def encode(batches: Iterator[Any]) -> Iterator[Any]:
        encode_documents = EncodeDocuments(encoder)
        for batch in batches:
            table = encode_documents(pa.Table.from_batches([batch])).select(["id", "vector"])
            yield from table.cast(schema).to_batches()

    try:
        frame = session.read.parquet(*paths).mapInArrow(encode, "id long, vector array<float>")
        return frame.toArrow()
    finally:
        session.stop()


#: Engines by name: each takes files, an encoder's folder and a mark, and returns a table of ids and vectors.
ENGINES: dict[str, Callable[[list[str], str, str], Any]] = {"ray": _ray, "daft": _daft, "spark": _spark}


def distributed(
    engine: Annotated[
        list[str] | None, typer.Argument(help=f"{', '.join(ENGINES)}. Default: all that are installed.")
    ] = None,
    collection: Annotated[str, typer.Option(help="Collection to encode.")] = "lareqa-en-minilm",
    data: Data = None,
    cache: Cache = CACHE,
) -> None:
    """Encode a collection on data-frame engines, and compare the bits with one process."""
    modules = {"ray": "ray", "daft": "daft", "spark": "pyspark"}
    names = engine or [name for name in ENGINES if find_spec(modules[name]) is not None]
    try:
        for name in names:
            require_known(name, ENGINES, "engine")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    (loaded,) = load_collections([collection], data, cache)
    print_rows(COLUMNS, encode_distributed(loaded, names))
