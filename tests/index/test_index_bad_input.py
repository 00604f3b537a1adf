"""What an index refuses, by name."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from builders.realistic_collections import CONFIG
from builders.searched_indexes import DOCUMENTS, QUERIES, built, every_way, with_nan

from muvera import FDEConfig, FDEEncoder, MuveraIndex

BAD_SEARCHES: list[tuple[Any, type[Exception], str]] = [
    (lambda i: i.search(QUERIES, 0), ValueError, "k must be at least 1, got 0"),
    (lambda i: i.search(QUERIES, "1"), TypeError, "k must be an int, got str '1'"),
    (lambda i: i.search(QUERIES, 8, candidates=7), ValueError, "candidates=7 must be at least k=8"),
    (lambda i: i.search(QUERIES, 1, candidates=0), ValueError, "candidates must be at least 1, got 0"),
    (lambda i: i.search(QUERIES, 1, candidates=2.5), TypeError, "candidates must be an int, got float"),
    (
        lambda i: i.search(np.ones((2, 15))),
        ValueError,
        "queries has 15 columns, but this index has dimension=16",
    ),
    (lambda i: i.search(QUERIES, 1, ef=0), ValueError, "ef must be at least 1, got 0"),
    (lambda i: i.search(QUERIES, 1, ef=2.5), TypeError, "ef must be an int, got float 2.5"),
    (lambda i: i.search(with_nan(2)), ValueError, "has nan in its token 0, coordinate 3"),
    (lambda i: i.search(QUERIES, 1, threads=0), ValueError, "threads must be at least 1, got 0"),
    (
        lambda i: i.search(QUERIES, 1, ball_carving_tau=0),
        ValueError,
        "ball_carving_tau must be above 0 and at most 1, .* got 0",
    ),
    (
        lambda i: i.search(QUERIES, 1, ball_carving_tau="1"),
        TypeError,
        "ball_carving_tau must be a number, got str",
    ),
    (lambda i: i.search(QUERIES, 1, patience=0), ValueError, "patience must be at least 1, got 0"),
    (
        lambda i: i.search("a text"),
        TypeError,
        "queries must be token vectors, got the text str 'a text'. Encode it with your model first",
    ),
    (
        lambda i: i.search([QUERIES[0], "b"]),
        TypeError,
        r"queries\[1\] must be token vectors, got the text str 'b'. Encode it with your model first",
    ),
]


@every_way
@pytest.mark.parametrize(("call", "kind", "message"), BAD_SEARCHES)
def test_bad_searches_are_named(way: dict[str, Any], call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(built(**way))


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: MuveraIndex(CONFIG, exact_tokens=-1),
            ValueError,
            "exact_tokens must be at least 0, got -1",
        ),
        (
            lambda: MuveraIndex(CONFIG, exact_tokens=cast(int, 1.0)),
            TypeError,
            "exact_tokens must be an int, got float 1.0",
        ),
        (lambda: MuveraIndex(CONFIG, backend=cast(Any, "flat")), ValueError, "got 'flat'"),
        (lambda: MuveraIndex(CONFIG, hnsw={"m": 1}), ValueError, "hnsw: m must be at least 2, got 1"),
        (
            lambda: MuveraIndex(CONFIG, encoder=FDEEncoder(FDEConfig(dimension=8))),
            ValueError,
            "The encoder has configuration [0-9a-f]{16}, but the index is to have",
        ),
        (lambda: MuveraIndex.build([]), ValueError, "There are no documents to build an index of"),
        (lambda: MuveraIndex.build(iter([])), ValueError, "There are no documents to build an index of"),
        (
            lambda: MuveraIndex.build("tokens"),
            TypeError,
            "documents must be token vectors, got the text str 'tokens'. Read a saved folder with MultiVectors.load",
        ),
        (lambda: MuveraIndex.build(Path("tokens")), TypeError, "got the path .*MultiVectors.load"),
        (lambda: MuveraIndex.build(["text"]), TypeError, "Encode it with your model first"),
        (lambda: MuveraIndex.build(DOCUMENTS, threads=0), ValueError, "threads must be at least 1, got 0"),
        (lambda: built().add(DOCUMENTS[:0], threads=0), ValueError, "threads must be at least 1, got 0"),
        (lambda: built().update(DOCUMENTS, threads=True), TypeError, "threads must be an int, got bool"),
        (lambda: built().rebuild(threads=0), ValueError, "threads must be at least 1, got 0"),
    ],
)
def test_bad_buildings_are_named(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()
