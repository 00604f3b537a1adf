"""Damage by the formats' own libraries: sound HDF5, Parquet and Arrow files of the wrong content."""

from __future__ import annotations

import random
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["change_arrow", "change_hdf5", "change_parquet"]

_NUMBERS = (0, -1, 1, 3, 2**31, 2**62, 2**63 - 1, -(2**63))


def change_hdf5(file: Path, rng: random.Random) -> None:
    """Put another dataset, attribute or link into an HDF5 file."""
    h5py: Any = import_module("h5py")
    with h5py.File(file, "r+") as opened:
        datasets: list[str] = []
        opened.visititems(lambda name, node: datasets.append(name) if hasattr(node, "dtype") else None)
        name = rng.choice(datasets)
        rng.choice(_IN_HDF5)(h5py, opened, name, rng)


def _attribute(h5py: Any, file: Any, name: str, rng: random.Random) -> None:
    values: tuple[Any, ...] = (*_NUMBERS, 0.5, "x", [4, 4], np.zeros(0), h5py.Empty("f4"))
    file[name].attrs["dim"] = rng.choice(values)


def _values(h5py: Any, file: Any, name: str, rng: random.Random) -> None:
    """Replace a dataset by one of another type, shape or content."""
    values: tuple[Any, ...] = (
        np.zeros((0, 4), np.float32), np.zeros((3, 0), np.float32), np.ones((2, 3, 4), np.float32), np.float32(1),
        np.full((10, 4), np.nan, np.float32), np.full((10, 4), 1e39), np.ones((10, 4), np.int8),
        np.ones((10, 4), np.complex64), np.array(rng.choices(_NUMBERS, k=5)), np.array(rng.choices(_NUMBERS, k=6)),
        np.array([1.5, 2.0]), np.array([b"a", b"\xff"]), ["a", "a", "b", "c", "d"], ["a"] * 5, "text",
        np.zeros(3, [("a", "f4"), ("b", "i4")]), h5py.Empty("f4"), np.ones((10, 4), np.float16),
    )  # fmt: skip
    del file[name]
    file[name] = rng.choice(values)


def _storage(h5py: Any, file: Any, name: str, rng: random.Random) -> None:
    """Replace a dataset by one whose numbers lie elsewhere or nowhere."""
    del file[name]
    kind = rng.randrange(4)
    if kind == 0:
        file.create_dataset(name, (4, 4), "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
    elif kind == 1:
        layout = h5py.VirtualLayout((4, 4), "f4")
        layout[:] = h5py.VirtualSource("/etc/passwd", "tokens", (4, 4))
        file.create_virtual_dataset(name, layout)
    elif kind == 2:
        file.create_dataset(name, (2**40, 4), "f4", chunks=(2**16, 4))
    else:
        file.create_dataset(name, (2**40, 4), "f4", chunks=(1, 4), compression="gzip")


def _link(h5py: Any, file: Any, name: str, rng: random.Random) -> None:
    links = (
        h5py.ExternalLink("/etc/passwd", "/tokens"), h5py.SoftLink("/nothing"), h5py.SoftLink(f"/{name}"),
        h5py.SoftLink("/"), file["/"],
    )  # fmt: skip
    del file[name]
    file[name] = rng.choice(links)


_IN_HDF5: tuple[Callable[[Any, Any, str, random.Random], None], ...] = (
    _attribute,
    _values,
    _values,
    _storage,
    _link,
)


def change_parquet(file: Path, rng: random.Random) -> None:
    """Write the table again with another column, perhaps packed in another way."""
    pq: Any = import_module("pyarrow.parquet")
    table = _changed(pq.read_table(file), rng)
    pq.write_table(
        table,
        file,
        compression=rng.choice(("none", "snappy", "gzip", "zstd", "lz4", "brotli")),
        use_dictionary=rng.random() < 0.5,
        data_page_version=rng.choice(("1.0", "2.0")),
        data_page_size=rng.choice((1, 1 << 20)),
        row_group_size=rng.choice((1, 2, 100)),
    )


def change_arrow(file: Path, rng: random.Random) -> None:
    """Write the table again with another column, as the file or the stream that it was, or packed."""
    pa: Any = import_module("pyarrow")
    whole = file.read_bytes()[:6] == b"ARROW1"
    with pa.memory_map(str(file)) as mapped:
        read = (pa.ipc.open_file if whole else pa.ipc.open_stream)(mapped).read_all()
        table = _changed(pa.table(read.to_pydict(), read.schema), rng)
    options = pa.ipc.IpcWriteOptions(compression=rng.choice((None, "lz4", "zstd")))
    opener: Any = rng.choice((pa.ipc.new_file, pa.ipc.new_stream))
    with opener(str(file), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rng.choice((1, 2, 100)))


def _changed(table: Any, rng: random.Random) -> Any:
    """Return the table with one column of another kind or content, without one, or without rows."""
    pa: Any = import_module("pyarrow")
    count = table.num_rows
    action = rng.random()
    if action < 0.1:
        return table.slice(0, 0)
    at = rng.randrange(table.num_columns)
    name = table.column_names[at]
    if action < 0.2:
        return table.remove_column(at)
    if action < 0.3:
        return table.append_column(name, table.column(at))
    lists, item = pa.list_, pa.float32()
    columns: tuple[Any, ...] = (
        pa.array([None] * count, lists(lists(item))), pa.array([[]] * count, lists(lists(item))),
        pa.array([[None, [1.0]]] * count, lists(lists(item))), pa.array([[[1.0, None]]] * count, lists(lists(item))),
        pa.array([[[1.0] * (i + 1)] for i in range(count)], lists(lists(item))),
        pa.array([[[float("nan")] * 4]] * count, lists(lists(item))), pa.array([[["a"]]] * count),
        pa.array([[[1]]] * count), pa.array([[1.0]] * count, lists(item)), pa.array(["a"] * count),
        pa.array([[[[1.0]]]] * count), pa.array([[[1e300] * 4]] * count), pa.array([None] * count, pa.null()),
        pa.array([[[1.0] * 4]] * count, pa.large_list(lists(pa.float16(), 4))),
        pa.array([[[]]] * count, lists(lists(item, 0))), pa.array([2**63 - 1] * count), pa.array([b"\xff"] * count),
        pa.array([True] * count), pa.array([{"a": 1.0}] * count), pa.array(["x"] * count).dictionary_encode(),
        pa.array([None, *range(count - 1)]),
    )  # fmt: skip
    return table.set_column(at, name, rng.choice(columns))
