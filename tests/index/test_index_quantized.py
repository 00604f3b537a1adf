"""An index of quantized FDEs: when codes are learned, what it says of its size, and what it keeps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import CONFIG, documents_like_real, queries_like_real

from muvera import MuveraIndex
from muvera.encoders.fde.encoder import FDEEncoder
from muvera.index.candidates import CandidateSearch
from muvera.index.settings import IndexSettings
from muvera.mips import Int8Search, PQSearch, PQSettings

DOCUMENTS = documents_like_real(600)
QUERIES = queries_like_real(DOCUMENTS, 20)

learns = pytest.mark.compiled("codes are learned from hundreds of vectors")


def built(count: int = 600, **settings: Any) -> MuveraIndex:
    given = {"exact_tokens": 0, "backend": "pq", **settings}
    return MuveraIndex.build(DOCUMENTS[:count], CONFIG, threads=1, **given)


def vectors_of(index: MuveraIndex) -> dict[str, Any]:
    vectors = index.info().vectors
    assert vectors is not None
    return vectors


def answers(index: MuveraIndex, **settings: Any) -> list[list[tuple[Any, float]]]:
    return [list(ranking) for ranking in index.search(QUERIES, **{"k": 10, "candidates": 50, **settings})]


def shared(found: Any, expected: Any) -> float:
    """Share of the expected ids that were found."""
    pairs = zip(found, expected, strict=True)
    return float(np.mean([len({i for i, _ in a} & {i for i, _ in b}) / len(b) for a, b in pairs]))


@learns
def test_answers_are_nearly_those_of_floats_in_a_part_of_the_bytes() -> None:
    expected = answers(built(backend="exact"))
    sizes = {}
    # The floor of codes leaves room for short FDEs of few documents: 67 bytes for 529 floats.
    for name, floor, settings in (
        ("int8", 0.99, {"backend": "int8"}),
        ("pq", 0.93, {}),
        ("rescored", 0.99, {"pq": {"rescore": 100}}),
    ):
        index = built(**settings)
        assert shared(answers(index), expected) >= floor, name
        sizes[name] = vectors_of(index)["bytes_per_vector"]
        # Scores are exact Chamfer, whatever proposed the candidates.
        assert all(
            score == dict(b).get(i, score)
            for a, b in zip(answers(index), expected, strict=True)
            for i, score in a
        )
    assert sizes == {"int8": 529 + 4 + 8, "pq": 67 + 8, "rescored": 67 + 529 + 4 + 8}


@learns
def test_what_an_index_says_of_itself() -> None:
    index = built(pq={"subvector_size": 4, "train_size": 300})
    facts = index.info()
    vectors = facts.vectors
    assert facts.search == "pq" and facts.warnings == () and vectors is not None
    assert (vectors["kind"], vectors["subvector_size"], vectors["fitted_on"]) == ("pq", 4, 300)
    assert vectors["bytes_per_vector"] == 133 + 8
    assert vectors["recall"] is None  # there is nothing exact to compare with
    tokens = facts.tokens * 16 * 4 / 600
    assert facts.bytes_per_document == round(tokens + 133 + 8)
    assert vectors_of(built(backend="int8"))["recall"] is None


@learns
def test_codes_are_learned_at_the_end_of_a_build_and_of_an_add_that_brings_enough() -> None:
    index = built(200)  # of which 11 are empty
    assert vectors_of(index)["fitted_on"] == 0
    # 529 floats in whole lanes, their bytes in whole registers with three numbers, the label.
    assert vectors_of(index)["bytes_per_vector"] == 4 * 544 + 576 + 12 + 8
    few = answers(index)
    assert few == answers(built(200, backend="exact"))
    index.add(documents_like_real(600)[200:280])
    filled = int((DOCUMENTS[:280].lengths > 0).sum())
    assert vectors_of(index)["fitted_on"] == filled
    assert vectors_of(built(280))["fitted_on"] == filled


@learns
def test_codes_that_were_learned_from_few_are_warned_about_and_learned_again_by_rebuild() -> None:
    index = built(280)
    learned = vectors_of(index)["fitted_on"]
    for seed in range(1, 5):
        index.add(documents_like_real(280, seed))
    (warning,) = index.info().warnings
    held = vectors_of(index)["vectors"]
    assert f"learned from only {learned} of now {held} documents: rebuild()" in warning
    index.rebuild(threads=1)
    assert index.info().warnings == () and vectors_of(index)["fitted_on"] == held


@learns
@pytest.mark.parametrize("settings", [{}, {"pq": {"rescore": 40, "subvector_size": 4}}, {"backend": "int8"}])
def test_saved_loaded_added_to_and_deleted_from(settings: Any, tmp_path: Path) -> None:
    index = built(**settings)
    index.delete(range(30))
    index.save(tmp_path / "index")
    loaded = MuveraIndex.load(tmp_path / "index")
    assert vectors_of(loaded) == vectors_of(index) and answers(loaded) == answers(index)
    for one in (index, loaded):
        one.add(documents_like_real(60, 7))
        one.delete([40, 41])
    loaded.save(tmp_path / "index")
    again = MuveraIndex.load(tmp_path / "index")
    allowed = list(range(0, 600, 2))
    for other in (loaded, again):
        assert answers(other) == answers(index)
        assert answers(other, filter=lambda name: name % 2 == 0) == answers(
            index, filter=lambda name: name % 2 == 0
        )
    found = {name for row in answers(again, filter=set(allowed) - {40}, candidates=20) for name, _ in row}
    assert found <= set(allowed) - {40} - set(range(30))


@learns
def test_build_does_not_depend_on_threads_or_batches() -> None:
    encoder = FDEEncoder(CONFIG).fit(DOCUMENTS)
    whole = built(encoder=encoder)
    batches = [DOCUMENTS[start : start + 70] for start in range(0, 600, 70)]
    parts = MuveraIndex.build(batches, CONFIG, exact_tokens=0, backend="pq", encoder=encoder, threads=2)
    assert answers(whole) == answers(parts)


def test_the_backend_chooses_the_search() -> None:
    encoder = FDEEncoder(CONFIG).fit(DOCUMENTS)
    assert isinstance(CandidateSearch(encoder, IndexSettings(backend="int8")).search, Int8Search)
    search = CandidateSearch(
        encoder, IndexSettings(backend="pq", pq=PQSettings(subvector_size=5, rescore=7))
    ).search
    assert isinstance(search, PQSearch) and (search.settings.subvector_size, search.settings.rescore) == (
        5,
        7,
    )
    with pytest.raises(ValueError, match="pq: rescore must be at least 0, got -3"):
        MuveraIndex(CONFIG, pq={"rescore": -3})
    with pytest.raises(ValueError, match="pq has no 'centroids'"):
        MuveraIndex(CONFIG, pq={"centroids": 16})
