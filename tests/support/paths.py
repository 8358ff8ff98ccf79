"""Where the checkout and the tests' data are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
PENDING: set[str] = set()
"""Pages that the README links to and that another branch brings; empty once they are here."""
