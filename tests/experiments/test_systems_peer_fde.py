"""FDEs of the real libraries, as the test environment has them, under our search and rerank."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.system_inputs import ask, exact_scores, material, some_documents, unit_texts

from experiments.peers.environments import PEERS, Library
from experiments.peers.workers.serve import operations_of
from experiments.systems import peer_fde
from experiments.systems.registry import SYSTEMS
from muvera.mips.exact import bytes_in_memory
from muvera.mips.hnsw import bytes_in_graph

Encode = Callable[[np.ndarray], np.ndarray]

SIZE = {"repetitions": 3, "bits": 2, "width": 8}
QUERIES = unit_texts(50, [4, 1, 9])
SEED = 7  # of every material


def of_muvfde() -> tuple[Encode, Encode]:
    library = pytest.importorskip("muvfde")

    def config() -> Any:
        made = library.fixed_dimensional_encoding_config()  # a setter returns a copy
        made.set_num_repetitions(3)
        made.set_num_simhash_projections(2)
        made.set_seed(SEED)
        made.set_projection_type(library.projection_type.AMS_SKETCH)
        made.set_projection_dimension(8)
        return made

    encode = library.generate_fixed_dimensional_encoding
    filled = config()
    filled.set_encoding_type(library.encoding_type.AVERAGE)
    filled.enable_fill_empty(True)
    return (lambda tokens: encode(tokens, filled)), (lambda tokens: encode(tokens, config()))


def of_fastembed() -> tuple[Encode, Encode]:
    pytest.importorskip("fastembed")
    encoder = importlib.import_module("fastembed.postprocess").Muvera(
        dim=16, k_sim=2, dim_proj=8, r_reps=3, random_seed=SEED
    )
    return encoder.process_document, encoder.process_query


ENCODERS = {"muvfde": of_muvfde, "fastembed": of_fastembed}


@pytest.fixture(params=ENCODERS)
def peer(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """A library in this environment instead of its own, with its two encoders."""
    name = request.param
    encoders = ENCODERS[name]()
    monkeypatch.setitem(PEERS, name, Library(name, PEERS[name].worker))
    yield name, encoders


@pytest.mark.parametrize("backend", ["exact", "hnsw"])
def test_answers_are_the_librarys_fdes_searched_and_ranked_exactly(
    peer: tuple[str, tuple[Encode, Encode]], backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_fde, "_BLOCK", 16)  # several blocks
    name, (encode_document, encode_query) = peer
    documents = some_documents(0, 40)
    system = SYSTEMS[name](backend=backend, **SIZE)  # type: ignore[call-arg]
    try:
        system.build(material(documents, tmp_path))
        answers = ask(system, QUERIES, 5, candidates=12, **({"ef": 40} if backend == "hnsw" else {}))
        size = system.bytes_per_document()
    finally:
        system.close()
    fdes = np.array([encode_document(document) for document in documents])
    exact = exact_scores(QUERIES, documents)
    for i, query in enumerate(QUERIES):
        candidates = np.argsort(-(fdes @ encode_query(query)))[:12]
        best = candidates[np.argsort(-exact[i, candidates])][:5]
        assert answers.ids[i].tolist() == best.tolist()
        np.testing.assert_allclose(answers.scores[i], exact[i, best], rtol=1e-5)
    floats = 3 * 4 * 8
    assert size == (bytes_in_graph(floats, 16) if backend == "hnsw" else bytes_in_memory(floats))


def test_a_prepared_process_is_the_one_that_encodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("muvfde")
    monkeypatch.setitem(PEERS, "muvfde", Library("muvfde", "muvfde_jobs"))
    system: Any = SYSTEMS["muvfde"](**SIZE)
    given = material(some_documents(0, 3), tmp_path)
    try:
        system.prepare(given)
        # None is made again, which would fail.
        monkeypatch.setitem(PEERS, "muvfde", Library("muvfde", "nothing_jobs"))
        system.build(given)
        ask(system, QUERIES, 3)
    finally:
        system.close()


def test_a_failing_encoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "muvfde", Library("muvfde", "nothing_jobs"))
    system = SYSTEMS["muvfde"](**SIZE)
    try:
        with pytest.raises(RuntimeError, match=r"^muvfde, load: the process ended: ModuleNotFound"):
            system.build(material(some_documents(0, 3), tmp_path))
    finally:
        system.close()


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backend must be 'exact' or 'hnsw', got 'tree'\."):
        SYSTEMS["fastembed"](backend="tree")  # type: ignore[call-arg]


def test_closing_what_was_never_built() -> None:
    SYSTEMS["fastembed"]().close()


@pytest.mark.parametrize("name", ["fastembed", "muvfde", "muvera_python"])
def test_every_system_has_a_library_whose_worker_encodes(name: str) -> None:
    system: Any = SYSTEMS[name]
    assert system.name == name
    worker = importlib.import_module(f"experiments.peers.workers.{PEERS[system.library].worker}")
    assert {"load", "encode_document", "encode_query"} <= operations_of(worker).keys()
