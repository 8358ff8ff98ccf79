"""Runs: a finished one, damaged, and asked by `worldaction verify`, `report` and what `--resume` begins with."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from experiments.campaign.base import Attack
from experiments.commands.verify import problems_of
from experiments.report.pages.markdown import markdown
from experiments.report.pages.run_page import write_report
from experiments.study.conduct import conduct
from experiments.study.finished import mended
from experiments.study.options import parse_study
from experiments.study.run import Run
from worldaction.errors import UserError
from worldaction.io.sealed_json import SEAL

SETTINGS = {
    "table.max-steps": 16, "data.frames": 480, "data.episode-frames": 48, "data.near-misses": 2, "data.demos": 2,
    "world-model.cameras": "rgb_static", "world-model.batch": 4, "world-model.length": 8, "world-model.steps": 10,
    "success.steps": 10, "clone.steps": 10, "update.iterations": 2, "update.dreams": 4, "update.starts": 2,
    "evaluation.episodes": 2, "evaluation.curve-episodes": 0, "evaluation.sampler-episodes": 0,
    "evaluation.dreams": 2, "evaluation.judged-episodes": 2, "evaluation.parallel": 2, "evaluation.videos": 0,
    "evaluation.probes": 2, "evaluation.horizon": 8,
}  # fmt: skip
"""The smallest study that goes through all stages."""
READ = (".json", ".jsonl", ".safetensors", ".memmap")
BY_OTHERS = ("report.html", "metrics.csv")


class Runs(Attack):
    """A finished run."""

    name = "run"
    has_checksums = True

    def build(self) -> None:
        """Half a minute of work."""
        options = [part for name, value in SETTINGS.items() for part in (f"--{name}", str(value))]
        study, _, _ = parse_study(["debug", *options, "--workers", "1", "--run-dir", str(self.folder / "run")])
        conduct(study, None)

    def files(self) -> list[Path]:
        """What is read of it."""
        return [path for path in super().files() if path.suffix in READ and path.name not in BY_OTHERS]

    def answer(self) -> Any:
        """What it says, if it is whole."""
        run = self.folder / "run"
        problems = list(problems_of(run))
        self._use(run)
        if problems:
            raise UserError(problems[0])
        return _meaning(run)

    def _use(self, run: Path) -> None:
        """Its page, its tables, and what a resumed run begins with, whatever `verify` says: no more than an error."""
        for do in (write_report, markdown, self._begin_again):
            try:
                do(run)
            except UserError as error:
                if "\n" in str(error):
                    raise AssertionError("an error of several lines") from error

    def _begin_again(self, run: Path) -> None:
        # not in the folder that is attacked: a try that is cut short leaves it behind
        copy = self.folder.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        mended(Run.open(Path(shutil.copytree(run, copy, symlinks=True, copy_function=_copied))))


def _copied(source: str, target: str) -> None:
    """Pipes as well, which `shutil` refuses."""
    if Path(source).is_fifo():
        os.mkfifo(target)
    else:
        shutil.copy(source, target)


def _meaning(run: Path) -> dict[str, str]:
    """What the files of a run say, by their names: JSON without its blanks and seals, others as they are."""
    found = {}
    for path in sorted(path for path in run.rglob("*") if path.suffix in READ and path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".json":
            value = json.loads(content)
            if isinstance(value, dict):
                value.pop(SEAL, None)
            content = json.dumps(value, sort_keys=True).encode()
        found[str(path.relative_to(run))] = hashlib.sha256(content).hexdigest()
    return found
