"""Indexes of PLAID indexes whose codes are kept as they are."""

from pathlib import Path

import numpy as np
import pytest
from builders.foreign_indexes import random_index, write_plaid

from muvera import MultiVectors, MuveraIndex, convert


@pytest.mark.parametrize("nbits", [1, 2, 4])
@pytest.mark.parametrize("centroids", [5, 300])
def test_codes_are_kept(tmp_path: Path, nbits: int, centroids: int) -> None:
    written = random_index(3, [[4, 2, 7], [5, 9, 1, 6]], nbits=nbits, centroids=centroids)
    folder = write_plaid(tmp_path / "plaid", written)
    documents = convert.read(folder)
    index = MuveraIndex.build(convert.open_source(folder), tokens="source", path=tmp_path / "index")
    loaded = MuveraIndex.load(tmp_path / "index", verify_files=True)
    kept = loaded.info().token_codec
    assert kept["bytes_per_token"] == (1 if centroids < 257 else 2) + 2 + 16 * nbits // 8
    codes = loaded._contents.store.codes
    assert codes is not None
    stored = codes.rows(np.arange(7))
    numbers, _, packed = codes.codec.split_codes(stored.tokens)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(numbers, np.concatenate(written["codes"]))
    np.testing.assert_array_equal(packed, np.concatenate(written["packed"]))
    decoded = loaded.tokens(range(7))
    np.testing.assert_allclose(decoded.tokens, documents.tokens, atol=1e-3)
    queries = MultiVectors.from_arrays([np.asarray(documents[i], np.float32) for i in range(7)])
    expected = MuveraIndex.build(documents).search(queries, 1)
    for found in (index.search(queries, 1), loaded.search(queries, 1)):
        assert [ranking.ids.tolist() for ranking in found] == [ranking.ids.tolist() for ranking in expected]
    loaded.add([np.asarray(documents[2], np.float32)])
    assert len(loaded) == 8
    loaded.rebuild()
    loaded.save(tmp_path / "index")
    assert len(MuveraIndex.load(tmp_path / "index", verify_files=True)) == 8


def test_what_has_no_such_codes_is_refused(tmp_path: Path) -> None:
    documents = MultiVectors.from_arrays([np.eye(3, 4)])
    with pytest.raises(
        TypeError, match=r"the documents are MultiVectors\. Give such a source, or choose another"
    ):
        MuveraIndex.build(documents, tokens="source")
    with pytest.raises(
        ValueError, match="keep_exact=True needs exact tokens, which a source of codes has not"
    ):
        MuveraIndex.build(documents, tokens={"codec": "source", "keep_exact": True})
