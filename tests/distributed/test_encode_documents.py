"""EncodeDocuments: tables in and out with the bits of one process, and the sample that an encoder is fitted on."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import CONFIG, DIM, documents_like_real

from muvera import FDEEncoder
from muvera.distributed import EncodeDocuments, sample_files

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet")

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
    queries = EncodeDocuments(ENCODER, side="queries", output="q", keep_tokens=False)(whole)
    assert queries.column_names == ["id", "q"]
    assert EncodeDocuments(ENCODER)(whole.slice(0, 0)).num_rows == 0


def test_wrong_tables_are_refused(tmp_path: Path) -> None:
    encode = EncodeDocuments(ENCODER)
    with pytest.raises(ValueError, match=r"no column 'tokens'\. It has: id"):
        encode(pa.table({"id": [1]}))
    with pytest.raises(ValueError, match="has a column 'vector' already"):
        encode(encode(table_of(DOCUMENTS)))
    other = documents_like_real(3)
    narrow = pa.table({"tokens": type(other).from_arrays([np.ones((2, 5), np.float32)]).to_arrow()})
    with pytest.raises(ValueError, match=f"5.*{DIM}|{DIM}.*5"):
        encode(narrow)
    with pytest.raises(ValueError, match="needs to be fitted"):
        EncodeDocuments(FDEEncoder(CONFIG))
    with pytest.raises(FileNotFoundError, match="an encoder's folder has one"):
        EncodeDocuments(tmp_path)


def test_a_sample_is_drawn_from_all_files(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.parquet" for i in range(3)]
    for i, path in enumerate(paths):
        pq.write_table(table_of(DOCUMENTS[20 * i : 20 * i + 20]), path, row_group_size=5)
    every = sample_files(paths)
    assert len(every) == 60
    np.testing.assert_array_equal(every.tokens, DOCUMENTS.tokens)
    some, again = (sample_files(paths, count=12, seed=3) for _ in range(2))
    assert len(some) == 12
    np.testing.assert_array_equal(some.tokens, again.tokens)
    ENCODER.config.to_dict()
    with pytest.raises(ValueError, match="no files"):
        sample_files([])
    with pytest.raises(ValueError, match=r"no column 'x'\. It has: id, tokens"):
        sample_files(paths, "x")
    pq.write_table(table_of(DOCUMENTS[:0]), tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="have no rows"):
        sample_files([tmp_path / "empty.parquet"])
