"""Other ways to learn the same tasks, compared with a finished run on its own terms. One baseline is one file here."""

from __future__ import annotations

from worldaction.extension import Family

BASELINES = Family("method", "--methods", __name__, f"{__name__}.base:Baseline", "dppo or my_file:Mine")

REPLACED = dict.fromkeys(
    ("gaussian_bc", "gaussian_ppo"), "python -m experiments.calvin PRESET --policy gaussian --cache RUN"
)
"""Methods of before that a study does by itself, and the command that does them."""
