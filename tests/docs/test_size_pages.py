"""The table of sizes in docs/settings.md."""

from pathlib import Path

from muvera.fde.config import SIZES
from muvera.fde.steps import Covariance

SETTINGS = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_table_of_sizes_has_the_sizes() -> None:
    lines = SETTINGS.read_text(encoding="utf-8").split("| collection | landmarks |")[1].splitlines()
    rows = [line.strip("|").split("|") for line in lines[2 : 2 + len(SIZES)]]
    expected = [
        (
            f"{size.cells.num_landmarks:,}",
            "yes" if isinstance(size.moments, Covariance) else "no",
            f"{size.projection.final_projection_dimension:,}",
        )
        for size in SIZES
    ]
    shown = [tuple(cell.strip().split()[-1] for cell in row[1:]) for row in rows]
    assert shown == expected
    for size, (collection, *_) in zip(SIZES[1:], rows[1:], strict=True):
        assert size.documents is None or f"{size.documents:,}" in collection
