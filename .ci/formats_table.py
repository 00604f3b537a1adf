"""Write the tables of formats and of encoders in the documents.

The formats are in docs/how-to/colbert-index.md, the encoders in
docs/reference/texts.md.  Call it as ``python .ci/formats_table.py``.  A test compares
the tables with the program.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from muvera.convert.registry import READERS
from muvera.texts.encoders.names import KNOWN

END = "<!-- end of the table -->"


def formats() -> str:
    """Return a table with a row for each format."""
    rows = [
        f"| `{name}` | {reader.description.replace('<', '&lt;')} | `muvera convert {reader.example} tokens` |"
        for name, reader in READERS.items()
    ]
    return "\n".join(["| format | files | example |", "|---|---|---|", *rows])


def encoders() -> str:
    """Return a table with a row for each encoder."""
    rows = [
        f"| `{known.name}` | {' and '.join(f'{kind}s' for kind in known.kinds)} | {known.about} | "
        f"{'yes' if known.built_in else 'no'} |"
        for known in KNOWN
    ]
    return "\n".join(
        ["| name | encodes | model | loaded by the name in an index |", "|---|---|---|---|", *rows]
    )


#: Pages, the lines before their tables, and the tables.
PAGES: list[tuple[Path, str, Callable[[], str]]] = [
    (
        ROOT / "docs/how-to/colbert-index.md",
        "<!-- table of formats: python .ci/formats_table.py -->",
        formats,
    ),
    (ROOT / "docs/reference/texts.md", "<!-- table of encoders: python .ci/formats_table.py -->", encoders),
]


def page(path: Path, begin: str, table: Callable[[], str]) -> str:
    """Return a page with its table."""
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(END)}", re.DOTALL)
    text, count = pattern.subn(lambda _: f"{begin}\n{table()}\n{END}", path.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"{path} must have the lines {begin} and {END} once.")
    return text


if __name__ == "__main__":
    for path, begin, table in PAGES:
        path.write_text(page(path, begin, table), encoding="utf-8", newline="\n")
