"""Commands: of verbs that read, with arguments of all kinds."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import numpy as np

from experiments.__main__ import command
from experiments.calvin import main
from experiments.campaign.attacks.sets import write_store
from experiments.campaign.base import Attack, Input
from worldaction.io.disk import disk_errors

VERBS = (
    ("verify",), ("report",), ("report", "--markdown"), ("data", "inspect"), ("data", "check"), ("jury",), ("eval",),
    ("losses",), ("new", "loss"), ("check", "policy"), ("check", "loss"),
)  # fmt: skip
"""None of them trains anything."""
OPTIONS = ("--tasks", "--seeds", "--losses", "--policy", "--update", "--env", "--update.lr", "--data.frames", "--play")


class CommandLine(Attack):
    """What a user may type."""

    name = "command line"

    def build(self) -> None:
        """Things to point at."""
        write_store(self.folder / "store")
        (self.folder / "file.txt").write_text("x")
        (self.folder / "run").mkdir()
        (self.folder / "run" / "config.json").write_text("{}")
        os.mkfifo(self.folder / "pipe")

    def answer(self) -> Any:
        """See `Attack`."""
        return self._do(["verify", str(self.folder / "store")])

    def input(self, rng: np.random.Generator) -> Input:
        """See `Attack`."""
        things = [
            *map(str, sorted(self.folder.iterdir())), "/dev/zero", "/dev/null", "", " ", "-1", "1e400", "nan", "\0",
            "x" * 5000, "../../..", "--help", "%s", "open_drawer", "kl=x", "ppo,lr=x", "0", "é\ud800",
        ]  # fmt: skip
        chosen = [things[rng.integers(len(things))] for _ in range(1 + rng.integers(3))]
        if rng.random() < 0.5:
            words = [*VERBS[rng.integers(len(VERBS))], *chosen]
            return Input(f"{words[:4]!r:.200}", nullcontext(), lambda: self._do(words))
        words = ["debug", OPTIONS[rng.integers(len(OPTIONS))], *chosen, "--print-config"]
        return Input(f"{words[:4]!r:.200}", nullcontext(), lambda: self._print(words))

    def _do(self, words: list[str]) -> Any:
        os.chdir(self.folder)
        with disk_errors():
            command(words)
        return "done"

    def _print(self, words: list[str]) -> Any:
        os.chdir(self.folder)
        with disk_errors():
            main(words)
        return "done"
