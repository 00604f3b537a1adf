"""Identifiers use the field's words: those that were replaced must not come back (docs/glossary.md has the words)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.paths import ROOT

#: Retired words by the folder that they were retired in, each with the better one.  A leading underscore
#: is ignored; a word counts as the whole of an identifier only, one with parentheses as a function's only.
RETIRED = {
    ".": {
        "Arm": "EncoderCandidate",
        "Asked": "QuerySet",
        "Bench": "Evaluator",
        "LEARNED_FROM": "LEARNED_PRESET_FROM",
        "LEARN_FROM": "MIN_FIT_DOCUMENTS",
        "LOOKS_FOR": "DESCRIPTION",
        "Place": "DatasetPath",
        "RecallTask": "RecallEvaluator",
        "RowSearch": "FlatSearch",
        "SAMPLED": "MAX_FIT_DOCUMENTS",
        "Screening": "RerankOptions",
        "TOP": "K",
        "as_dict": "to_dict",
        "as_text": "text",
        "both_kinds": "as_kernel_arrays",
        "can_learn": "ready_to_train",
        "candidates_only": "first_stage",
        "carve": "ball_carving_tau",
        "carving": "ball_carving",
        "checked_out": "validated_out",
        "choosing": "selection",
        "depths": "cutoffs",
        "detects": "matches",
        "dim": "dimension",
        "dims": "dimensions",
        "fde_dimension": "vector_dimension",
        "file_beside": "atomic_file",
        "folder_beside": "atomic_folder",
        "give_up": "retire_rows",
        "is_due": "needs_vectors",
        "learn_from": "min_fit_documents",
        "maps_learned_from": "fitted_on",
        "of_ours": "muvera_jobs",
        "one_by_one": "timed_search",
        "outdated": "recall_is_stale",
        "outgrown": "fitted_on_too_few",
        "participation": "effective_rank",
        "rows_in_use": "existing_rows",
        "screen": "score_candidates",
        "screening": "pruning",
        "settle": "encode_if_large_enough",
        "shown()": "with_progress",
        "spool": "staging",
        "spool_bytes": "staging_bytes",
        "spooled": "staged",
        "sweep_beside": "remove_stale_siblings",
    },
    "muvera/diagnostics": {"own": "source_document", "words()": "render"},
    "muvera/tuning": {"words()": "render"},
    "muvera/index": {
        "Collection": "IndexContents",
        "Names": "IdMap",
        "dropped": "deleted_rows",
        "held": "contents",
        "known": "expected_generation",
        "pieces": "slices",
        "skip": "reserve",
    },
    "muvera/mips": {
        "accepts": "can_add",
        "group": "subvector_size",
        "holding": "existing",
    },
    "muvera/reranking": {"Piece": "DocumentSlice", "Plan": "PackedQuery", "pieces": "slices"},
    "experiments": {"growth": "scaling", "quick": "smoke", "stamp": "provenance"},
}

#: British spellings, anywhere in an identifier.
BRITISH = re.compile(
    r"learnt|centre|colour|neighbour|behaviour|labell|modell|"
    r"(normal|quant|serial|optim|vector|initial|random|organ|general|token|visual|summar)is(e|ed|es|er|ing|ation)(_|$)",
    re.IGNORECASE,
)


def definitions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of all that a file defines; names of other libraries it merely uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
            yield node.lineno, f"{node.name}()"
        elif isinstance(node, ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield 0, node.asname


def retired(path: Path, root: Path) -> list[str]:
    """Return a sentence for every retired word that a file defines."""
    place = path.relative_to(root)
    words = {
        old: new
        for folder, table in RETIRED.items()
        if Path(folder) in [place, *place.parents]
        for old, new in table.items()
    }
    found = []
    for line, name in definitions(ast.parse(path.read_text(encoding="utf-8"))):
        bare = name.lstrip("_")
        if bare in words:
            found.append(f"{place}:{line} defines {name}: say {words[bare]}")
        elif not bare.endswith("()") and BRITISH.search(bare):
            found.append(f"{place}:{line} defines {name}: spell it American")
    return found


def files() -> list[Path]:
    return sorted(path for folder in ("muvera", "experiments") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_retired_word_is_an_identifier(path: Path) -> None:
    assert retired(path, ROOT) == []


@pytest.mark.parametrize(
    "line",
    [
        "class RowSearch: ...",
        "def as_dict(self): ...",
        "def f(dim): ...",
        "self._spool = 1",
        "for _screening in (): ...",
        "import x as carving",
        "normalised = 1",
        "def _learnt_from(): ...",
    ],
)
def test_a_planted_word_is_found(line: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(f"{line}\n")
    assert len(retired(tmp_path / "module.py", tmp_path)) == 1


def test_a_word_of_one_folder_is_free_in_others(tmp_path: Path) -> None:
    for folder, count in (("muvera/mips", 1), ("muvera/data", 0)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "module.py").write_text("group = hnswlib.Index(dim=4)\n")
        assert len(retired(tmp_path / folder / "module.py", tmp_path)) == count
