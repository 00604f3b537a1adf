"""WARP indexes, made from the specification by the converter's steps in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.foreign_indexes import random_index, write_plaid, write_pt

from muvera.convert.readers import plaid, warp
from muvera.data.multivectors import MultiVectors


def _write(folder: Path, index: dict[str, Any], *, repacked: bool) -> np.ndarray:
    """Group a one-chunk index by centroid; return the decoded tokens in documents' order."""
    folder.mkdir()
    nbits, codes, packed = index["nbits"], index["codes"][0], index["packed"][0]
    documents = np.repeat(np.arange(len(index["lengths"][0])), index["lengths"][0]).astype(np.int32)
    order = np.argsort(codes, kind="stable")
    np.save(folder / "centroids.npy", index["centroids"].astype(np.float32))
    np.save(folder / "bucket_weights.npy", index["weights"])
    sizes = np.bincount(codes, minlength=len(index["centroids"])).astype(np.int64)
    write_pt(folder / "sizes.compacted.pt", sizes)
    write_pt(folder / "codes.compacted.pt", documents[order])
    bits = np.unpackbits(packed, axis=1).reshape(len(codes), -1, nbits)
    buckets = (bits << np.arange(nbits)).sum(-1)
    if repacked:  # the bucket's number, highest bit first, dimension after dimension
        high_first = (buckets[..., None] >> np.arange(nbits)[::-1]) & 1
        rows = np.packbits(high_first.astype(np.uint8).reshape(len(codes), -1), axis=1)
        write_pt(folder / "residuals.repacked.compacted.pt", rows[order])
    else:
        write_pt(folder / "residuals.compacted.pt", packed[order])
    return np.asarray(index["centroids"][codes].astype(np.float32) + index["weights"][buckets])


@pytest.mark.parametrize("nbits", [2, 4])
@pytest.mark.parametrize("repacked", [False, True])
def test_documents_are_put_together_again(tmp_path: Path, nbits: int, repacked: bool) -> None:
    index = random_index(nbits, [[3, 0, 5, 1, 7, 2]], 16, nbits)
    expected = MultiVectors.from_flat(
        _write(tmp_path / "index", index, repacked=repacked), index["lengths"][0]
    )
    assert warp.matches(tmp_path / "index") and not plaid.matches(tmp_path / "index")
    source = warp.open_source(tmp_path / "index")
    batches = list(source.batches(6))
    assert all(batch.num_tokens <= 6 or len(batch) == 1 for batch in batches)
    documents = MultiVectors.concatenate(batches)
    assert (source.num_documents, source.num_tokens, source.nbits, source.lossy) == (6, 18, nbits, True)
    assert documents.lengths.tolist() == expected.lengths.tolist()
    for got, wanted in zip(documents, expected, strict=True):  # the order inside is not kept
        assert np.array_equal(got[np.lexsort(got.T)], wanted[np.lexsort(wanted.T)])


def test_a_plaid_index_beside_is_preferred(tmp_path: Path) -> None:
    index = random_index(1, [[3, 2]])
    _write(tmp_path / "index", index, repacked=False)
    assert warp.matches(tmp_path / "index")
    for file in write_plaid(tmp_path / "plaid", index).iterdir():
        file.rename(tmp_path / "index" / file.name)
    assert plaid.matches(tmp_path / "index") and not warp.matches(tmp_path / "index")


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    _write(folder, random_index(1, [[3, 2]]), repacked=False)
    write_pt(folder / "residuals.compacted.pt", np.zeros((5, 3), np.uint8))
    with pytest.raises(
        ValueError, match=r"residuals\.compacted\.pt has uint8 of shape \(5, 3\), but dimension=16"
    ):
        warp.open_source(folder)
    write_pt(folder / "codes.compacted.pt", np.zeros(4, np.int32))
    with pytest.raises(ValueError, match=r"sizes\.compacted\.pt add up to 5, but there are 4"):
        warp.open_source(folder)
    write_pt(folder / "codes.compacted.pt", np.array([0, 0, -3, 1, 1], np.int32))
    with pytest.raises(ValueError, match=r"codes\.compacted\.pt has document -3"):
        warp.open_source(folder)
    write_pt(folder / "codes.compacted.pt", np.array([0, 0, 2**31 - 1, 1, 1], np.int32))
    with pytest.raises(
        ValueError, match="has document 2147483647, but 5 tokens can be of documents 0 to 1048575"
    ):
        warp.open_source(folder)
    write_pt(folder / "codes.compacted.pt", np.array([0, 0, 0, 1, 1], np.int32))
    sizes = np.array([2**63 - 1, 2**63 - 1, 7, 0, 0])
    write_pt(folder / "sizes.compacted.pt", sizes)
    with pytest.raises(
        ValueError, match=r"sizes\.compacted\.pt\[0\] is 9223372036854775807, but there are 5"
    ):
        warp.open_source(folder)
    (folder / "centroids.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"centroids\.npy is missing"):
        warp.open_source(folder)
