"""EncodeDocuments and EncodeTexts have the bits of one process."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import CONFIG, DIM, documents_like_real
from builders.text_encoders import HashEncoder

from muvera import FDEEncoder, MultiVectors
from muvera.distributed import EncodeDocuments, EncodeTexts

DOCUMENTS = documents_like_real(300, ids=np.arange(300))
ENCODER = FDEEncoder(CONFIG).fit(DOCUMENTS)


def vectors_of(table: Any) -> Any:
    return table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)


def test_encoded_tables_have_the_bits_of_one_process(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    ENCODER.save(tmp_path / "encoder")
    documents = documents_like_real(60, dtype=np.float16)
    expected, whole = ENCODER.encode_documents(documents), pa.table({"tokens": documents.to_arrow()})
    for encode in (
        EncodeDocuments(tmp_path / "encoder"),
        pickle.loads(pickle.dumps(EncodeDocuments(ENCODER))),
    ):
        np.testing.assert_array_equal(vectors_of(encode(whole)), expected)
        parts = pa.concat_tables([encode(whole.slice(start, 7)) for start in range(0, 60, 7)])
        np.testing.assert_array_equal(vectors_of(parts), expected)
        assert parts["vector"].type == pa.list_(pa.float32(), CONFIG.vector_dimension)
    assert encode(whole.slice(0, 0)).num_rows == 0
    narrow = MultiVectors.from_arrays([np.ones((2, 5), np.float32)]).to_arrow()
    for table, part in (
        (pa.table({"id": [1]}), "tokens"),
        (encode(whole), "vector"),
        (pa.table({"tokens": narrow}), f"5.*{DIM}|{DIM}.*5"),
    ):
        with pytest.raises(ValueError, match=part):
            encode(table)
    with pytest.raises(ValueError, match="fit"):
        EncodeDocuments(FDEEncoder(CONFIG))
    with pytest.raises(FileNotFoundError):
        EncodeDocuments(tmp_path)


def test_encoded_texts_have_the_bits_of_one_process() -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    encoder = HashEncoder()
    texts = ["a red apple", "", "green"]
    table = EncodeTexts(encoder)(pa.table({"text": ["a red apple", None, "green"]}))
    encoded, expected = MultiVectors.from_arrow(table["tokens"]), encoder.encode_documents(texts)
    np.testing.assert_array_equal(encoded.tokens, expected.tokens)
    np.testing.assert_array_equal(encoded.offsets, expected.offsets)
    with pytest.raises(ValueError, match="column 'tokens' already"):
        EncodeTexts(encoder)(table)
    with pytest.raises(ValueError, match="must have a column 'text', got id"):
        EncodeTexts(encoder)(pa.table({"id": [1]}))
