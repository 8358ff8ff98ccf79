"""The folder of a run: settings, where each stage's artefact lies, and what made it."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from envs import CALVIN_ID, METAWORLD_ID, PLAY_TABLE_ID
from experiments.study.arms import arms_of
from experiments.study.references import NAMED_BY, PLAY, STARTS, References
from experiments.study.reuse import ARMS, borrowed, is_run, lenders, made_there, named
from experiments.study.settings import Study, load_study
from worldaction.config import TableConfig, digest, stress_of_play, switched_on, to_dict
from worldaction.errors import UserError
from worldaction.io.artefact import Artefact, versions, write_json

LOGGER = logging.getLogger("worldaction")
STAGES = ("success", "clone", "ppo", "evaluation")
"""What is done for each task and seed, in order."""
ASIDE = {
    "world_model": ("world_model.save_every",),
    "evaluation": ("evaluation.parallel", "evaluation.probes", "evaluation.horizon"),
}
"""Settings of which a stage's results are independent. They stay in what made it, so that digests are as they were."""


@dataclass(frozen=True)
class Run:
    """A study and its folder."""

    study: Study
    folder: Path

    @classmethod
    def create(cls, study: Study) -> Run:
        """A new run, or the one in `run_dir` if it has the same settings."""
        study = replace(study, workers=study.workers or min(4, os.cpu_count() or 1), reuse=named(study.reuse))
        device(study)
        name = f"{study.preset}-{time.strftime('%Y%m%d-%H%M%S')}"
        folder = Path(study.run_dir) if study.run_dir else Path("runs") / _program(study)[0] / name
        begun = is_run(folder)
        run = cls.at(folder, replace(study, run_dir=None))
        if begun:
            # it was asked for anew, so results of what it began with would be no answer
            run._references.refuse_changed(run._references.all)
        return run

    @classmethod
    def at(cls, folder: Path, study: Study) -> Run:
        """The run of a study in a folder, new or as it was left.

        Raises:
            UserError: the folder holds a run with other settings.
        """
        run = cls(study, folder)
        if (folder / "config.json").exists():
            _refuse_other(load_study(folder), study, folder)
            run._references.refuse_changed(run._still_used)
            return run
        # first, because a folder with a config.json is a run
        run._write_env()
        write_json(folder / "config.json", to_dict(study))
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run."""
        study = load_study(folder)
        device(study)
        named(study.reuse)
        run = cls(study, folder)
        run._references.refuse_changed(run._still_used)
        return run

    def _write_env(self) -> None:
        values: dict[str, Any] = {
            "versions": versions(),
            "commit": commit(),
            "platform": platform.platform(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "device": device_name(self.study),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        if self._references.all:
            values["content"] = self._references.now()
        write_json(self.folder / "env.json", values)

    @cached_property
    def _references(self) -> References:
        return References(self.study, self.folder)

    @property
    def _still_used(self) -> list[str]:
        """Names on which stages depend that are not complete; the arms of a study look for themselves."""
        if self.study.arms or not self._references.all:
            return []
        trained = all(self.world_model(seed).complete for seed in self.study.seeds)
        done = {PLAY: self.play().complete, NAMED_BY: trained} | dict.fromkeys(self._references.losses, trained)
        # a judge judges as long as there is something to judge
        return [name for name in self._references.all if name in self._references.envs or not done.get(name)]

    # Artefacts --------------------------------------------------------------------------------------------------------

    @cached_property
    def _lenders(self) -> list[Path]:
        return lenders(self.folder, self.study.reuse)

    def _artefact(self, place: str, made_by: dict[str, Any]) -> Artefact:
        """The run's own artefact, or the same one of another run where only that is complete."""
        aside = ASIDE.get(place.rpartition("/")[2], ())
        own = Artefact(self.folder / "artefacts" / place, made_by=made_by, aside=aside)
        if not own.complete:
            for lender in self._lenders:
                if made_there(lender / "artefacts" / place, made_by, aside):
                    return Artefact(lender / "artefacts" / place, made_by=made_by, aside=aside)
        return own

    def artefacts(self) -> dict[str, Artefact]:
        """All of the run's, by their place."""
        found = {"play": self.play()}
        for seed in self.study.seeds:
            found |= {f"seed{seed}/world_model": self.world_model(seed), f"seed{seed}/fidelity": self.fidelity(seed)}
        if learns(self.study):
            places = [(s, t, g) for s in self.study.seeds for t in self.study.tasks for g in STAGES]
            found |= {f"seed{s}/{task}/{stage}": self.task(s, task, stage) for s, task, stage in places}
        return found

    def borrowed(self) -> dict[str, Path]:
        """Places of artefacts that are read from other runs, and those runs' folders."""
        return borrowed(self.folder, self.artefacts())

    def play(self) -> Artefact:
        """Play data, shared by all seeds."""
        if self.study.play is not None:
            made_by: dict[str, Any] = {
                "play": str(Path(self.study.play).resolve()),
                "size": self.study.table.image_size,
                **self._references.part(PLAY),
            }
        else:
            made_by = {"table": to_dict(self.study.table), "data": to_dict(self.study.data), "tasks": self.study.tasks}
            made_by |= {**self._where, **self._references.part(*self._references.envs)}
            made_by |= _stress(switched_on(stress_of_play(self.study.stress)))
        return self._artefact("play", made_by)

    def world_model(self, seed: int) -> Artefact:
        """The trained world model of a seed."""
        made_by = {
            "play": self.play().digest,
            "world_model": _switched_on(to_dict(self.study.world_model), "graph", "named_by"),
            "losses": self.study.losses,
            "seed": seed,
            "threads": self.threads,
            **self._references.part(NAMED_BY, *self._references.losses),
        }
        if self.study.stress.hidden_actions:
            made_by["hidden_actions"] = self.study.stress.hidden_actions
        return self._artefact(f"seed{seed}/world_model", made_by)

    def fidelity(self, seed: int) -> Artefact:
        """Measurements of that model."""
        made_by = {
            "world_model": self.world_model(seed).digest,
            "probes": self.study.evaluation.probes,
            "horizon": self.study.evaluation.horizon,
        }
        return self._artefact(f"seed{seed}/fidelity", made_by)

    def task(self, seed: int, task: str, stage: str) -> Artefact:
        """One of the stages of a task: success, clone, ppo, evaluation."""
        settings: dict[str, dict[str, Any]] = {
            "success": {
                "world_model": self.world_model(seed).digest,
                "success": to_dict(self.study.success),
                **self._labels,
            },
            "clone": {
                "world_model": self.world_model(seed).digest,
                "policy": to_dict(self.study.policy),
                "clone": to_dict(self.study.clone),
            },
        }
        stress = _stress(switched_on(replace(self.study.stress, hidden_actions=0.0)))
        if stage in ("ppo", "evaluation"):
            settings["ppo"] = {
                "success": self.task(seed, task, "success").digest,
                "clone": self.task(seed, task, "clone").digest,
                "ppo": _switched_on(to_dict(self.study.update), "bf16"),
                "table": to_dict(self.study.table),
                "curve": self.study.evaluation.curve_episodes,
                **self._where,
            }
            # points of the curve are measured as the evaluation is
            curve = bool(self.study.evaluation.curve_episodes)
            settings["ppo"] |= {**stress, **self._starts} if curve else {}
            settings["ppo"] |= self._references.part(*self._references.envs, *([STARTS] if curve else []))
        if stage == "evaluation":
            settings["evaluation"] = {
                "ppo": self.task(seed, task, "ppo").digest,
                "evaluation": to_dict(self.study.evaluation),
                **self._starts,
                **self._references.part(STARTS),
                **stress,
            }
        made_by = settings[stage] | {"seed": seed, "task": task}
        return self._artefact(f"seed{seed}/{task}/{stage}", made_by)

    @property
    def _where(self) -> dict[str, Any]:
        """Where the agents live."""
        return {"env": self.study.env, "gym": to_dict(self.study.gym)}

    @property
    def _labels(self) -> dict[str, Any]:
        """What labels depend on beside play that was recorded elsewhere: generated play says it all itself."""
        usual = self.study.play is None or self.study.table.scene == TableConfig().scene
        return {} if usual else {"scene": self.study.table.scene}

    @property
    def _starts(self) -> dict[str, Any]:
        """Where start states come from, if not from seeds."""
        return {} if self.study.starts is None else {"starts": str(Path(self.study.starts).resolve())}

    def arms(self) -> dict[str, Run]:
        """The runs that this one compares, by their name: those of its arms, and none if it has none.

        What they leave of the workers to each world model is the same for all, for it is part of what makes it.
        """
        found = arms_of(self.study)
        models = {Run(arm.study, self.folder).world_model(self.study.seeds[0]).digest for arm in found}
        share = max(1, self.study.workers // max(1, len(models)))
        return {arm.name: Run(replace(arm.study, workers=share), self.folder / ARMS / arm.slug) for arm in found}

    @property
    def log(self) -> Path:
        """Where the console's lines are kept."""
        return self.folder / "console.log"

    @property
    def threads(self) -> int:
        """Threads of a world model's training: the cores, shared by the seeds that train side by side."""
        return max(1, self.study.workers // len(self.study.seeds))

    @property
    def command(self) -> str:
        """What the user types to go on."""
        return f"{_program(self.study)[1]} --resume {self.folder}"


def _switched_on(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    """Settings without those of these that are off: what was made before they existed stays valid."""
    return {key: value for key, value in settings.items() if value or key not in names}


def settings_of(study: Study) -> str:
    """A short hash of a study: of what its results depend on, and not of where artefacts are looked for."""
    values = to_dict(replace(study, run_dir=None))
    left_out = {"reuse", "kernels"} | (set() if study.arms else {"arms"})
    return digest({name: value for name, value in values.items() if name not in left_out})


def learns(study: Study) -> bool:
    """Whether policies are learned: there are demonstrations, and a simulator of the same kind."""
    return study.play is None or study.env == CALVIN_ID


def _program(study: Study) -> tuple[str, str]:
    """The folder below runs/ for studies of a kind, and the program that runs them."""
    if study.env in (PLAY_TABLE_ID, CALVIN_ID):
        return "calvin", "python -m experiments.calvin"
    if study.env == METAWORLD_ID:
        return "metaworld", "python -m experiments.metaworld"
    return "train", "worldaction train"


def _stress(switches: dict[str, Any]) -> dict[str, Any]:
    """A part of what made an artefact, and none where all switches are off: digests are what they were without any."""
    return {"stress": switches} if switches else {}


def device(study: Study) -> torch.device:
    """Where to compute.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if study.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA GPU is available to torch; use --device cpu or auto")
    if study.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def device_name(study: Study) -> str:
    """The device in words."""
    chosen = device(study)
    return torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "cpu"


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def commit() -> str:
    """The commit of the sources, with a plus if they were changed; empty outside a checkout."""
    try:
        here = Path(__file__).resolve().parent
        name = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=here, capture_output=True, text=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True)
    except OSError:
        return ""
    return name.stdout.strip() + ("+" if dirty.stdout.strip() else "") if name.returncode == 0 else ""


def _refuse_other(old: Study, new: Study, folder: Path) -> None:
    before, now = to_dict(old), to_dict(new)
    for key in now:
        if before[key] != now[key]:
            part = _first_difference(before[key], now[key], key)
            raise UserError(
                f"{folder} holds a run with other settings ({part}); give another --run-dir, or --resume it"
            )


def _first_difference(before: Any, now: Any, name: str) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in now:
            if before.get(key) != now[key]:
                return _first_difference(before.get(key), now[key], f"{name}.{key}")
    return f"{name} {before!r}, not {now!r}"
