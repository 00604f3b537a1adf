"""PLAID through the real fast-plaid, where an environment of it is kept: it brings torch, some gigabytes.

``MUVERA_PEERS`` names the cache folder of the experiments; an environment that is missing there is made.
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from builders.system_inputs import ask, exact_scores, material, some_documents, unit_texts

from experiments.peers.environments import PEERS, Library
from experiments.systems.plaid import Plaid
from experiments.systems.registry import SYSTEMS

CACHE = os.environ.get("MUVERA_PEERS")
QUERIES = unit_texts(50, [4, 1, 9])

needs_fast_plaid = pytest.mark.skipif(
    CACHE is None, reason="MUVERA_PEERS names no cache folder for an environment with fast-plaid and torch"
)


@pytest.fixture
def plaid() -> Iterator[Plaid]:
    """PLAID, whose process is ended."""
    system = Plaid(nbits=4)
    yield system
    system.close()


@needs_fast_plaid
def test_scoring_all_documents_comes_near_to_chamfer(plaid: Plaid, tmp_path: Path) -> None:
    documents = some_documents(0, 60, dtype=np.float16)
    plaid.build(material(documents, tmp_path, Path(str(CACHE))))
    exact = exact_scores(QUERIES, documents)
    everything = {"n_ivf_probe": 1000, "n_full_scores": 4 * 60}
    answers = ask(plaid, QUERIES, 60, **everything)
    for i in range(len(QUERIES)):
        assert sorted(answers.ids[i].tolist()) == list(range(60))
        # A coordinate has 4 bits: similarities are off by some hundredths, those of strangers by tenths.
        gaps = answers.scores[i] - exact[i, answers.ids[i]]
        assert np.abs(gaps).mean() < 0.05 * len(QUERIES[i])
    again = ask(plaid, QUERIES, 10, candidates=60, **everything)
    np.testing.assert_array_equal(again.ids, np.argsort(-exact, axis=1)[:, :10])
    few = ask(plaid, QUERIES, 10, n_full_scores=16)
    assert ((few.ids >= 0).sum(axis=1) == 4).all()  # a quarter


@needs_fast_plaid
def test_bytes_are_those_of_codes_and_residuals(plaid: Plaid, tmp_path: Path) -> None:
    documents = some_documents(0, 60, dtype=np.float16)
    plaid.build(material(documents, tmp_path, Path(str(CACHE))))
    tokens = documents.num_tokens
    # 8 bytes of code, 8 of residual (16 coordinates of 4 bits), and centroids and lists beside.
    assert 16 * tokens / 60 < plaid.bytes_per_document() < 200 * tokens / 60
    assert not list(tmp_path.glob("documents*"))


def test_a_process_that_ends_is_named(plaid: Plaid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "fast-plaid", Library("fast-plaid", "nothing_jobs"))
    with pytest.raises(RuntimeError, match=r"^fast-plaid, load: the process ended: ModuleNotFoundError"):
        plaid.build(material(some_documents(0, 3), tmp_path))


@pytest.mark.skipif(find_spec("fast_plaid") is not None, reason="this environment has fast-plaid")
def test_a_missing_library_is_reported(plaid: Plaid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "fast-plaid", Library("fast-plaid", "fast_plaid_jobs"))
    with pytest.raises(RuntimeError, match=r"^fast-plaid, load: ModuleNotFoundError: .*'fast_plaid'"):
        plaid.build(material(some_documents(0, 3), tmp_path))


def test_it_is_registered() -> None:
    assert SYSTEMS["plaid"] is Plaid
