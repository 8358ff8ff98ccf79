"""What a study with arms comes to: its arms beside each other, in numbers, tables, pictures and on a page."""

from __future__ import annotations

from experiments.report.comparison.numbers import compare
from experiments.report.comparison.tables import console_tables, headline, markdown_tables

__all__ = ["compare", "console_tables", "headline", "markdown_tables"]
