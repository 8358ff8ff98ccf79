"""The campaign's loop and its figures."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import numpy as np

from experiments.campaign.base import FAILURES, Attack, Outcome
from experiments.campaign.trial import SECONDS, Trial, answer_of, tried
from experiments.report.table import Table
from worldaction.errors import UserError

KEPT = 20
"""Failures of each attack that are told in full."""


@dataclass
class Figures:
    """What came of one attack."""

    attack: str
    has_checksums: bool
    counts: Counter[Outcome] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    """What was done and what came of it, of the first ones."""

    @property
    def inputs(self) -> int:
        """How many there were."""
        return self.counts.total()

    @property
    def failed(self) -> int:
        """How many came to what must never be."""
        never = sum(self.counts[outcome] for outcome in FAILURES)
        return never + (self.counts["accepted though changed"] if self.has_checksums else 0)

    def add(self, words: str, trial: Trial) -> None:
        """Count one."""
        before = self.failed
        self.counts[trial.outcome] += 1
        if self.failed > before and len(self.failures) < KEPT:
            self.failures.append(f"{words} --> {trial.outcome}: {trial.words}")


class Worked:
    """An attack that is ready: what it attacks is built.

    Args:
        cls: which.
        folder: to work in.
        seed: of its random numbers.
        seconds: limit of a try.
    """

    def __init__(self, cls: type[Attack], folder: Path, *, seed: int, seconds: float = SECONDS) -> None:
        self.figures = Figures(cls.name, cls.has_checksums)
        self._mark = folder / "mark"
        self._attack = cls(folder / "attacked")
        self._attack.folder.mkdir(parents=True)
        built = tried(self._attack.build, None, mark=self._mark, seconds=20 * seconds)
        if built.outcome != "correct":
            raise UserError(f"the attack {cls.name} cannot be built: {built.outcome}, {built.words}; report it")
        self._wanted = answer_of(self._attack, mark=self._mark)
        self.spent = 0.0
        self._rng, self._seconds = np.random.default_rng([seed, *cls.name.encode()]), seconds

    def once(self) -> None:
        """Try one input."""
        began = time.monotonic()
        made = self._attack.input(self._rng)
        with made.changed:
            trial = tried(made.answer, self._wanted, mark=self._mark, seconds=self._seconds)
        self.figures.add(made.words, trial)
        self.spent += time.monotonic() - began


def campaign(
    attacks: Sequence[type[Attack]],
    *,
    minutes: float,
    seed: int,
    each: int | None = None,
    seconds: float = SECONDS,
    report: Callable[[str], object] = lambda line: None,
) -> list[Figures]:
    """Attack everything for as long as is asked.

    Args:
        attacks: which.
        minutes: how long, without what it takes to build what is attacked.
        seed: of the inputs: equal seeds, equal inputs in the same order.
        each: inputs of each attack at most.
        seconds: limit of one try.
        report: told of what goes on, a line at a time.
    """
    folder = Path(tempfile.mkdtemp(prefix="worldaction-campaign-"))
    try:
        work = []
        for number, cls in enumerate(attacks):
            if missing := [name for name in cls.needs if find_spec(name) is None]:
                report(f"{cls.name}: left out, {', '.join(missing)} is not installed")
                continue
            report(f"{cls.name}: building")
            work.append(Worked(cls, folder / str(number), seed=seed, seconds=seconds))
        end, told = time.monotonic() + 60 * minutes, time.monotonic()
        while left := [one for one in work if each is None or one.figures.inputs < each]:
            if time.monotonic() >= end:
                break
            # equal time for each, for some are a hundred times as fast as others
            min(left, key=lambda one: one.spent).once()
            if time.monotonic() - told > 60:
                told = time.monotonic()
                failed = sum(one.figures.failed for one in work)
                report(f"{sum(one.figures.inputs for one in work)} inputs, {failed} failures")
        return [one.figures for one in work]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def figures_table(found: Sequence[Figures]) -> Table:
    """A row an attack, a column an outcome."""
    outcomes: tuple[Outcome, ...] = get_args(Outcome)
    numbers = {one.attack: [one.inputs, *(one.counts[name] for name in outcomes), one.failed] for one in found}
    rows = [[name, *map(str, row)] for name, row in numbers.items()]
    total = ["all", *(str(sum(column)) for column in zip(*numbers.values(), strict=True))]
    return Table(["input", "tried", *outcomes, "failures"], rows, total)
