"""Paths of the checkout, the golden files and the real collections."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"

#: Real collections beside the checkout; tests that need them are skipped if they are absent.
SHARED = ROOT.parent / "shared" / "data"
