"""Make ``tests/golden/texts/rows``, an index of rows that later versions read.

Some texts were deleted, replaced and added after the first save.

    PYTHONPATH=.:tests python -m builders.golden_rows
"""

import json
import shutil

from builders.paths import GOLDEN
from builders.text_encoders import SignTable
from muvera import TextIndex

FOLDER = GOLDEN / "texts" / "rows"

TEXTS = [
    f"{size} {color} {fruit}"
    for size in ("small", "two", "a very long row of")
    for color in ("red", "green and yellow", "blue")
    for fruit in ("apples", "pears with leaves", "plums")
]

if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    ids = [f"text {i}" for i in range(len(TEXTS))]
    TextIndex.build(TEXTS, SignTable(), ids=ids, path=FOLDER, threads=1)
    with TextIndex.open(FOLDER, SignTable()) as index:
        index.delete(["text 3"])
        index.update("red leaves", ids=["text 5"], metadata=[{"year": 2020}])
        index.add("pears", ids=["added \u2713"])
    (FOLDER / ".lock").unlink(missing_ok=True)
    hits = TextIndex.load(FOLDER, SignTable()).search("red pears with green leaves", 5)
    answers = [[hit.id, hit.parts] for hit in hits]
    FOLDER.with_suffix(".json").write_text(json.dumps(answers, indent=1) + "\n")
