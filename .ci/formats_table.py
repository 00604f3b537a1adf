"""Write the table of formats in docs/how-to/colbert-index.md from the readers.

Call it as ``python .ci/formats_table.py``.  A test compares the table with the readers.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from muvera.convert.registry import READERS

PAGE = ROOT / "docs" / "how-to" / "colbert-index.md"

BEGIN = "<!-- table of formats: python .ci/formats_table.py -->"
END = "<!-- end of the table -->"


def table() -> str:
    """Return the table: a row for each format."""
    rows = [
        f"| `{name}` | {reader.description.replace('<', '&lt;')} | `muvera convert {reader.example} tokens` |"
        for name, reader in READERS.items()
    ]
    return "\n".join(["| format | files | example |", "|---|---|---|", *rows])


def page() -> str:
    """Return the page with the table."""
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    text, count = pattern.subn(lambda _: f"{BEGIN}\n{table()}\n{END}", PAGE.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"{PAGE} must have the lines {BEGIN} and {END} once.")
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
