"""Random operations on an index, each compared with a plain model of its contents."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from builders.pages import GRID, page_vectors
from builders.text_encoders import ShortModel

from attack.changes import CONFIG, agrees, joined, random_parts
from attack.cut_short import small_limits
from muvera import MultiVectors, MuveraIndex, PageIndex, TextIndex, chamfer
from muvera.pages import Page

#: Settings of a MuveraIndex by name: every backend with every codec.
VECTORS: dict[str, dict[str, Any]] = {
    f"{backend} {tokens or 'floats'}{' and exact' if exact else ''}": {
        "backend": backend, "tokens": tokens, "keep_exact": exact, "exact_tokens": 60,
    }
    for backend in ("auto", "exact", "scan", "hnsw")
    for tokens, exact in [
        (None, False), ("int8", False), ("4bit", False), ("2bit", False), ("1bit", False), ("2bit", True)
    ]
}  # fmt: skip

#: Names of all models.
MODELS = (*VECTORS, "texts", "open texts", "pages")

#: Models with each backend and each codec once.
SOME = (
    "auto 1bit", "exact 4bit", "scan int8", "hnsw floats", "hnsw 2bit", "exact 2bit and exact",
    "texts", "open texts", "pages",
)  # fmt: skip

# Documents from which on deletions become more frequent than additions.
_MANY = 60

# Error of the score of a few tokens of eight bits.
_CODED = 0.03

_WORDS = [f"{first}{last}" for first in ("ca", "do", "he", "ow") for last in ("t", "g", "n", "l", "x")]


# Tokens of a part of a long text.
_PASSAGE = ShortModel().reader("document").passage


class LongTexts(ShortModel):
    """A model that reads 16 tokens and a special one; longer texts have parts."""

    dimension = 12


class AbandonedError(Exception):
    pass


def refuse(*changes: Callable[[], object]) -> None:
    """Require that each change raises an error."""
    for change in changes:
        try:
            change()
        except (ValueError, KeyError):
            continue
        raise AssertionError("a wrong change was not refused")


class Model:
    """An index, what it must contain, and operations on both."""

    def __init__(self, folder: Path, stream: np.random.Generator) -> None:
        self.folder, self.stream, self.next = folder, stream, 0
        self.held: dict[Any, Any] = {}
        self.index: Any = None

    def some(self, most: int) -> list[Any]:
        """Return some ids of documents."""
        ids = list(self.held)
        count = min(len(ids), int(self.stream.integers(1, most + 1)))
        return [ids[i] for i in self.stream.permutation(len(ids))[:count]]

    def new(self) -> list[Any]:
        """Return some new ids."""
        first = self.next
        self.next += int(self.stream.integers(1, 8))
        return list(range(first, self.next))

    def operations(self) -> list[Callable[[], object]]:
        """Return the operations; a list may have one several times."""
        raise NotImplementedError

    def check(self) -> None:
        """Compare the index with the model."""
        raise NotImplementedError

    def step(self) -> str:
        """Run one operation and return its name."""
        growing = self.stream.random() < 1 - len(self.held) / (2 * _MANY)
        work = self.operations()
        chosen = work[0 if growing and self.stream.random() < 0.5 else int(self.stream.integers(len(work)))]
        chosen()
        self.check()
        return chosen.__name__


class VectorModel(Model):
    def __init__(self, folder: Path, stream: np.random.Generator, **settings: Any) -> None:
        super().__init__(folder, stream)
        self.index, self.exact = MuveraIndex(CONFIG, **settings), settings["tokens"] is None
        self.coded = not self.exact and not settings["keep_exact"]

    def operations(self) -> list[Callable[[], object]]:
        return [
            self.add, self.update, self.delete, self.delete, self.block, self.block, self.abandoned,
            self.refused, self.rebuild, self.save, self.save, self.reload, self.rebuild_in_place,
        ]  # fmt: skip

    def tokens(self, ids: list[Any]) -> MultiVectors:
        return joined({id: random_parts(self.stream) for id in ids})

    def hold(self, documents: MultiVectors) -> None:
        for id in documents.ids.tolist():
            self.held.pop(id, None)
        for id, tokens in zip(documents.ids.tolist(), documents, strict=True):
            self.held.setdefault(id, []).append(np.array(tokens))

    def add(self) -> None:
        documents = self.tokens(self.new())
        self.index.add(documents, threads=1)
        self.hold(documents)

    def update(self) -> None:
        documents = self.tokens([*self.some(5), *self.new()])
        self.index.update(documents, threads=1)
        self.hold(documents)

    def delete(self) -> None:
        gone = self.some(6)
        self.index.delete(gone)
        for id in gone:
            del self.held[id]

    def _steps(self, change: Any) -> tuple[list[Any], list[MultiVectors]]:
        gone, added = self.some(4), [self.tokens(self.new()), self.tokens(self.new())]
        change.delete(gone)
        change.add(added[0], threads=1)
        if self.stream.random() < 0.5:
            change.commit()
        if self.stream.random() < 0.2:
            change.rebuild(1)
        change.update(added[1], threads=1)
        return gone, added

    def block(self) -> None:
        with self.index.change() as change:
            gone, added = self._steps(change)
            try:
                self.index.delete([])
            except RuntimeError:
                pass
            else:
                raise AssertionError("a nested change was not refused")
        for id in gone:
            del self.held[id]
        for documents in added:
            self.hold(documents)

    def abandoned(self) -> None:
        try:
            with self.index.change() as change:
                change.add(self.tokens(self.new()), threads=1)
                change.delete(self.some(4))
                raise AbandonedError
        except AbandonedError:
            pass

    def refused(self) -> None:
        used = self.some(1)
        refuse(
            lambda: (
                self.index.add(self.tokens([*self.new(), *used]), threads=1)
                if used
                else self.index.delete([-1])
            ),
            lambda: self.index.delete([*used, -1]),
            lambda: self.index.add(np.full((1, 2, 12), np.nan)),
        )

    def rebuild(self) -> None:
        self.index.rebuild(threads=1, fit=bool(self.stream.random() < 0.3))

    def rebuild_in_place(self) -> None:
        self.index.save(self.folder, overwrite=True)
        self.index.rebuild(path=self.folder, threads=1)

    def save(self) -> None:
        self.index.save(self.folder, overwrite=True)

    def reload(self) -> None:
        self.index.save(self.folder, overwrite=True)
        before = self.index.tokens(list(self.held))
        self.index = MuveraIndex.load(self.folder, verify_files=True)
        assert np.array_equal(before.tokens, self.index.tokens(list(self.held)).tokens), (
            "loading changes tokens"
        )

    def check(self) -> None:
        assert self.index.ids.tolist() == list(self.held), "wrong ids, or in another order"
        stored: dict[Any, list[Any]] = {id: [] for id in self.held}
        rows = [(id, tokens) for id, parts in self.held.items() for tokens in parts]
        kept = self.index.tokens(list(self.held))
        assert kept.ids.tolist() == [id for id, _ in rows], "parts of other documents"
        for (id, _), tokens in zip(rows, kept, strict=True):
            stored[id].append(np.asarray(tokens, np.float32))
        pairs = [(own, np.asarray(tokens, float)) for (_, own), tokens in zip(rows, kept, strict=True)]
        if not self.coded or self.index.codec is None:
            assert all(np.array_equal(*pair) for pair in pairs), "wrong tokens"
        else:
            assert all(len(own) == len(tokens) for own, tokens in pairs), "wrong numbers of tokens"
            cosines = [
                float((own * tokens).sum()) / max(float(np.linalg.norm(own) * np.linalg.norm(tokens)), 1e-9)
                for own, tokens in pairs
                if len(own)
            ]
            assert not cosines or np.mean(cosines) > 0.6, f"codes of other tokens: {np.mean(cosines)}"
        query = self.stream.normal(size=(3, 12)).astype(np.float32)
        among = set(self.some(40)) if self.stream.random() < 0.3 and self.held else None
        filled = [id for id, tokens in rows if len(tokens) and (among is None or id in among)]
        count = max(10, len(filled) - 1)
        rescore = count if self.index.settings.keep_exact and self.index.codec is not None else None
        options = {"ids": among, "candidates": count, "rescore": rescore, "threads": 1}
        ranking = self.index.search(query, 10, **options)[0]
        seen = stored if rescore is None else self.held
        visible = {id: seen[id] for id in filled}
        # With all candidates but one, at most one is missing; a graph may miss another.
        missing = 2 if self.index.settings.backend == "hnsw" else 1
        assert agrees(ranking, query, visible, missing == 1, 1), f"wrong answer {list(ranking)}"
        assert len(ranking) >= min(10, len(visible) - missing), f"only {len(ranking)} of {len(visible)}"


class TextModel(Model):
    """Texts in memory, or in an open folder whose process is killed now and then."""

    def __init__(self, folder: Path, stream: np.random.Generator, opened: bool) -> None:
        super().__init__(folder, stream)
        self.opened, self.encoder = opened, LongTexts()
        settings: dict[str, Any] = {"vectors": CONFIG, "exact_tokens": 100}
        self.index = TextIndex.build(["cat"], self.encoder, ids=[-1], path=folder, **settings)
        self.held[-1] = ("cat", {})
        if opened:
            self.index = TextIndex.open(folder, self.encoder)

    def operations(self) -> list[Callable[[], object]]:
        return [
            self.add, self.update, self.update_metadata, self.delete, self.delete, self.refused,
            self.rebuild, self.save, self.reload, *([self.kill] * self.opened),
        ]  # fmt: skip

    def text(self) -> str:
        most = 80 if self.stream.random() < 0.2 else 6
        return " ".join(self.stream.choice(_WORDS, int(self.stream.integers(0, most))))

    def score(self, asked: np.ndarray, text: str) -> float:
        """Return the similarity of the best part of a text."""
        tokens = self.encoder.encode_documents([text])[0]
        count = -(-len(tokens) // _PASSAGE)
        bounds = [len(tokens) * i // count for i in range(count + 1)]
        return max(float(chamfer(asked, tokens[a:b])) for a, b in pairwise(bounds))

    def put(self, ids: list[Any], work: Callable[..., object]) -> None:
        texts = [self.text() for _ in ids]
        metadata = [{"n": int(self.stream.integers(4))} for _ in ids]
        work(texts, ids=ids, metadata=metadata, threads=1)
        for id, text, fields in zip(ids, texts, metadata, strict=True):
            self.held.pop(id, None)
            self.held[id] = (text, fields)

    def add(self) -> None:
        self.put(self.new(), self.index.add)

    def update(self) -> None:
        self.put([*self.some(4), *self.new()], self.index.update)

    def update_metadata(self) -> None:
        ids = self.some(4)
        self.index.update(ids=ids, metadata=[{"n": None, "m": "x"}] * len(ids))
        for id in ids:
            self.held[id] = (self.held[id][0], {"m": "x"})

    def delete(self) -> None:
        gone = self.some(5)
        self.index.delete(gone)
        for id in gone:
            del self.held[id]

    def refused(self) -> None:
        refuse(
            lambda: self.index.add(["x", "\ud800"]),
            lambda: self.index.add(["x", "y"], ids=[10**9, 10**9]),
            lambda: self.index.delete([*self.some(1), 10**9]),
            lambda: self.index.update(ids=[10**9], metadata=[{}]),
        )

    def rebuild(self) -> None:
        self.index.rebuild(threads=1)

    def save(self) -> None:
        self.index.save(*([] if self.opened else [self.folder]))

    def reload(self) -> None:
        if self.opened:
            self.index.close()
            self.index = TextIndex.open(self.folder, self.encoder)
        else:
            self.index.save(self.folder)
            self.index = TextIndex.load(self.folder, self.encoder)

    def kill(self) -> None:
        """Continue with a copy of the folder, which is like the folder after a kill."""
        copy = self.folder.with_name("copy")
        shutil.copytree(self.folder, copy)
        self.index.close()
        shutil.rmtree(self.folder)
        copy.rename(self.folder)
        self.index = TextIndex.open(self.folder, self.encoder)

    def check(self) -> None:
        found = {one.id: (one.text, one.metadata) for one in self.index}
        assert found == self.held, "wrong texts"
        n = int(self.stream.integers(4))
        within = [id for id, (_, fields) in self.held.items() if fields.get("n") == n]
        assert sorted(self.index.select({"n": n})) == sorted(within), "wrong selection"
        query = " ".join(self.text().split()[:5]) or "cat"
        where = {"n": n} if self.stream.random() < 0.4 else None
        hits = self.index.search(query, 5, words=0, mean=0, where=where, candidates=1000, threads=1)
        asked = self.encoder.encode_queries([query])[0]
        scores = {
            id: self.score(asked, self.held[id][0])
            for id in (self.held if where is None else within)
            if self.held[id][0].strip()
        }
        best = sorted(scores.values(), reverse=True)[:5]
        assert np.allclose([hit.score for hit in hits], best, atol=_CODED), (
            f"wrong scores of {query}: {[(hit.id, hit.score) for hit in hits]}, not {best}"
        )
        assert all(abs(scores[hit.id] - hit.score) < _CODED for hit in hits), "scores of other texts"


class PageModel(Model):
    def __init__(self, folder: Path, stream: np.random.Generator) -> None:
        super().__init__(folder, stream)
        self.index = PageIndex(16)
        self.index.save(folder)

    def operations(self) -> list[Callable[[], object]]:
        return [self.add, self.delete, self.refused, self.save, self.reload, self.save_over]

    def add(self) -> None:
        ids = [f"{'ab'[number % 2]}:{number + 1}" for number in self.new()]
        vectors = page_vectors(len(ids), seed=int(self.stream.integers(1 << 30)))
        pages = [
            Page(own, id[0], int(id[2:]), grid=GRID, metadata={"n": int(id[2:]) % 3})
            for id, own in zip(ids, vectors, strict=True)
        ]
        assert self.index.add(pages, threads=1) == ids
        self.held.update(zip(ids, vectors, strict=True))

    def delete(self) -> None:
        gone = self.some(6)
        self.index.delete(gone)
        for id in gone:
            del self.held[id]

    def refused(self) -> None:
        refuse(
            lambda: self.index.delete([*self.some(1), "c:1"]),
            lambda: self.index.add([Page(page_vectors(1)[0], "c"), Page(page_vectors(1)[0], "c")]),
        )

    def save(self) -> None:
        self.index.save()

    def save_over(self) -> None:
        other = self.folder.with_name("other")
        self.index.save(other, overwrite=True)
        self.index.save(self.folder, overwrite=True)

    def reload(self) -> None:
        self.index.save()
        self.index = PageIndex.load(self.folder)

    def check(self) -> None:
        assert self.index.ids == list(self.held), "wrong ids, or in another order"
        for id in self.some(3):
            assert np.allclose(self.index.vectors(id), self.held[id], atol=0.02), (
                f"vectors of another page: {id}"
            )
        if not self.held:
            return
        query = self.held[self.some(1)[0]][:3]
        where = {"n": 1} if self.stream.random() < 0.4 else None
        within = [id for id in self.held if where is None or int(id[2:]) % 3 == 1]
        hits = self.index.search(query, 5, where=where, rescore=len(self.held) + 5, threads=1)
        scores = {id: float(chamfer(query, self.held[id])) for id in within}
        best = sorted(scores.values(), reverse=True)[:5]
        assert np.allclose([hit.score for hit in hits], best, atol=_CODED), "wrong scores"
        assert all(abs(scores[hit.id] - hit.score) < _CODED for hit in hits), "scores of other pages"
        if hits:
            assert hits[0].heatmap().shape == GRID


def operate(name: str, count: int, seed: int = 0) -> tuple[int, list[str]]:
    """Run random operations on one kind of index.

    Return their number, and the fault that ended them.
    """
    stream = np.random.default_rng([seed, *name.encode()])
    done: list[str] = []
    with small_limits(), tempfile.TemporaryDirectory() as parent, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(parent, "index")
        if name == "pages":
            model: Model = PageModel(folder, stream)
        elif name in VECTORS:
            model = VectorModel(folder, stream, **VECTORS[name])
        else:
            model = TextModel(folder, stream, name == "open texts")
        try:
            for _ in range(count):
                done.append(model.step())
        except Exception as error:
            last = ", ".join(done[-4:])
            return len(done), [f"{name}, operation {len(done)} after {last}: {type(error).__name__}: {error}"]
        finally:
            if name == "open texts":
                model.index.close()
    return len(done), []
