"""EncodeDocuments: tables in and out with the bits of one process."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import CONFIG, DIM, documents_like_real

from muvera import FDEEncoder, MultiVectors
from muvera.distributed import EncodeDocuments

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

DOCUMENTS = documents_like_real(60, dtype=np.float16)
ENCODER = FDEEncoder(CONFIG).fit(DOCUMENTS)


def table_of(texts: Any) -> Any:
    return pa.table({"id": list(range(len(texts))), "tokens": texts.to_arrow()})


def vectors_of(table: Any) -> Any:
    return table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)


def test_vectors_have_the_bits_of_one_process(tmp_path: Path) -> None:
    ENCODER.save(tmp_path / "encoder")
    expected = ENCODER.encode_documents(DOCUMENTS)
    whole = table_of(DOCUMENTS)
    for encode in (
        EncodeDocuments(tmp_path / "encoder"),
        pickle.loads(pickle.dumps(EncodeDocuments(ENCODER))),
    ):
        np.testing.assert_array_equal(vectors_of(encode(whole)), expected)
        parts = pa.concat_tables([encode(whole.slice(start, 7)) for start in range(0, 60, 7)])
        np.testing.assert_array_equal(vectors_of(parts), expected)
        assert parts["vector"].type == pa.list_(pa.float32(), CONFIG.vector_dimension)
    assert EncodeDocuments(ENCODER)(whole.slice(0, 0)).num_rows == 0


def test_wrong_tables_are_refused(tmp_path: Path) -> None:
    encode = EncodeDocuments(ENCODER)
    narrow = MultiVectors.from_arrays([np.ones((2, 5), np.float32)]).to_arrow()
    for table, part in (
        (pa.table({"id": [1]}), "tokens"),
        (encode(table_of(DOCUMENTS)), "vector"),
        (pa.table({"tokens": narrow}), f"5.*{DIM}|{DIM}.*5"),
    ):
        with pytest.raises(ValueError, match=part):
            encode(table)
    with pytest.raises(ValueError, match="fit"):
        EncodeDocuments(FDEEncoder(CONFIG))
    with pytest.raises(FileNotFoundError):
        EncodeDocuments(tmp_path)
