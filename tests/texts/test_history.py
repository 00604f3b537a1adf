"""History leaves no trace: answers are those of an index built from the same texts."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.text_encoders import WORDS, ShortModel, WordTable

from muvera import TextIndex

QUERIES = ["bab dad kab", "zebra bak the", " ".join(WORDS[:12])]


class History:
    """An index that random changes are made to, and what it must contain."""

    def __init__(self, encoder: Any, kind: type, folder: Path, seed: int, **options: Any) -> None:
        self._encoder, self._kind, self._options = encoder, kind, options
        self._rng = np.random.default_rng(seed)
        self._folder, self._copies = folder / "index", 0
        self.texts: dict[Any, tuple[str, dict[str, Any]]] = {}
        self.index = TextIndex.build([], encoder, path=self._folder, **options)
        self.reopen()

    def fresh(self) -> TextIndex:
        """Return an index that was built from the same texts."""
        texts, metadata = zip(*self.texts.values(), strict=True) if self.texts else ((), ())
        return TextIndex.build(
            texts, self._encoder, ids=list(self.texts), metadata=metadata, **self._options
        )

    def step(self) -> None:
        """Make a random change."""
        changes = [self.add, self.add, self.update, self.delete, self.set_metadata]
        changes += [self.index.rebuild, self.index.save, self.reopen, self.survive]
        changes[int(self._rng.integers(len(changes)))]()

    def _chosen(self, most: int) -> list[Any]:
        names = list(self.texts)
        count = min(len(names), int(self._rng.integers(1, most)))
        return [names[i] for i in self._rng.permutation(len(names))[:count]]

    def _text(self) -> str:
        rng = self._rng
        length = int(rng.choice([0, 1, 3, 8, 20, 70]))
        extra = ["zebra", "the", "of"] if rng.random() < 0.3 else []
        return " ".join([*rng.choice(WORDS[:90], length), *extra])

    def _metadata(self) -> dict[str, Any]:
        return {"n": int(self._rng.integers(4)), "even": bool(self._rng.integers(2))}

    def _put(self, names: list[Any], call: Any) -> None:
        rows = {name: (self._text(), self._metadata()) for name in names}
        call([text for text, _ in rows.values()], ids=names, metadata=[one for _, one in rows.values()])
        self.texts = {id: row for id, row in self.texts.items() if id not in rows} | rows

    def add(self) -> None:
        numbers = self._rng.permutation(10_000)[: self._rng.integers(1, 12)].tolist()
        self._put([name for name in map(self._kind, numbers) if name not in self.texts], self.index.add)

    def update(self) -> None:
        self._put([*self._chosen(6), self._kind(20_000 + int(self._rng.integers(99)))], self.index.update)

    def delete(self) -> None:
        names = self._chosen(8)
        self.index.delete(names)
        self.texts = {id: row for id, row in self.texts.items() if id not in names}

    def set_metadata(self) -> None:
        names = self._chosen(4)
        if names:
            values = [self._metadata() for _ in names]
            self.index.update(ids=names, metadata=values)
            for name, own in zip(names, values, strict=True):
                self.texts[name] = self.texts[name][0], own

    def reopen(self) -> None:
        self.index.close()
        self.index = TextIndex.open(self._folder, self._encoder)

    def survive(self) -> None:
        """Go on with a copy of the folder, as after a kill."""
        self._copies += 1
        copied = self._folder.with_name(f"copy{self._copies}")
        shutil.copytree(self._folder, copied)
        self.index.close()
        self._folder = copied
        self.index = TextIndex.open(copied, self._encoder)

    def answers(self, index: TextIndex) -> list[Any]:
        some = list(self.texts)[::3]
        found: list[Any] = [list(index)]
        for options in (
            {},
            {"words": 0.6, "k": 3},
            {"mean": 0.5},
            {"where": {"n": {"$lt": 2}}},
            {"ids": [*some, self._kind(99_999)]},
            {"group_by": "n"} if self.texts else {},
            {"candidates": 5, "k": 5},
        ):
            hits = index.search(QUERIES, **{"k": 200, **options})
            found.append([[(hit.id, hit.score, hit.parts) for hit in own] for own in hits])
        return found


CASES: dict[str, tuple[Any, type, dict[str, Any]]] = {
    "table": (WordTable(), int, {}),
    "table, str": (WordTable(), str, {}),
    "parts": (ShortModel(), str, {"tokens": "float32"}),
    "parts by vectors": (ShortModel(), int, {"tokens": "float32", "exact_tokens": 0, "vectors": "simhash"}),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_history_leaves_no_trace(case: str, seed: int, tmp_path: Path) -> None:
    encoder, kind, options = CASES[case]
    history = History(encoder, kind, tmp_path, seed, **options)
    for _ in range(6):
        for _ in range(4):
            history.step()
        assert history.answers(history.index) == history.answers(history.fresh())
    history.index.close()
    loaded = TextIndex.load(history._folder, encoder)
    assert history.answers(loaded) == history.answers(history.fresh())
