"""The folder of a run: its settings, what made it, and links to the artefacts of its stages.

config.json, env.json     the settings, and what made them: versions, commit, machine, fingerprints
artefacts/<place>         links to what the stages made, which lies in the cache
cache/<stage>/<digest>    the artefacts, unless `--cache` names another folder that several runs share
policies/ evaluation/ videos/    files of the artefacts under names for people
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast

from envs.benchmark import benchmark_class
from experiments.study.arms import arms_of, judges_of
from experiments.study.checks import JUDGED, judged_in, learns
from experiments.study.fingerprints import LABELS, NAMED_BY, PLAY, STARTS, Fingerprints
from experiments.study.machine import about, device
from experiments.study.resolve import Resolved, resolve
from experiments.study.settings import Study, load_study
from worldaction import __version__
from worldaction.config import Device, digest, stress_of_play, switched_on, to_dict
from worldaction.errors import UserError
from worldaction.io.artefact import CHECKPOINT, Artefact, Cache
from worldaction.io.atomic import replacing, write_json
from worldaction.kernels import VARIABLE
from worldaction.play.store import PlayStore

LOGGER = logging.getLogger("worldaction")
ARMS: Final = "arms"
"""The folder in a run in which its arms are runs of their own."""
JURY: Final = "jury"
"""What the places of jurors' artefacts begin with, where no simulator judges."""
REAL: Final = "real"
"""What those of rounds begin with, before their number."""
STAGES = ("success", "clone", "sampler", "ppo", "evaluation")
"""What is done for each task and seed, in order."""
FREE = {
    "world_model": ("save_every",),
    # what is held out is part of the play; of measurements, what is too little is a matter of words
    "success": ("held_out", "min_youden", "min_true_positives", "max_false_positives", "stop_on_no_go"),
    "evaluation": ("parallel", "probes", "horizon", "within", "judged_episodes"),
    "update": ("evaluate_every",),
}
"""Settings on which no result depends, by section."""
_PLAY, _READ = 3, 4
"""Raised when play is made, or is read, in another way: nothing made of older play is taken for what is asked."""
_PROGRAMS = {"calvin": "python -m experiments.calvin", "metaworld": "python -m experiments.metaworld"}


@dataclass(frozen=True)
class Run:
    """A study and its folder. It travels to the processes of its stages."""

    study: Study
    folder: Path
    known: Resolved | None = field(default=None, compare=False, repr=False)
    """What the settings stand for, if it has been looked up already."""
    held_out: bool = False
    """Whether this is the side of the run's jurors: world models that learn from what is held out, and from nothing
    else."""
    round: int = 0
    """How often its policies have been recorded and gone on with; each time is a side of the run, with a play, world
    model and policies of its own for each seed. See `experiments/real/rounds.py`."""

    @classmethod
    def create(cls, study: Study, known: Resolved | None = None) -> Run:
        """A new run, or the one in `run_dir` if it has the same settings."""
        study = replace(
            study,
            workers=study.workers or min(4, os.cpu_count() or 1),
            cache=cache_folder(study.cache),
            device=cast(Device, device(study).type),
            kernels=study.kernels or os.environ.get(VARIABLE, ""),
        )
        name = f"{study.preset}-{time.strftime('%Y%m%d-%H%M%S')}"
        folder = Path(study.run_dir) if study.run_dir else Path("runs") / benchmark_class(study.env).program / name
        begun = is_run(folder)
        run = cls.at(folder, replace(study, run_dir=None), known)
        if begun:
            # it was asked for anew, so results of what it began with would be no answer
            run.fingerprints.refuse_changed(run.fingerprints.all)
        return run

    @classmethod
    def at(cls, folder: Path, study: Study, known: Resolved | None = None) -> Run:
        """The run of a study in a folder, new or as it was left.

        Raises:
            UserError: the folder holds a run with other settings.
        """
        run = cls(study, folder, known)
        if is_run(folder):
            _refuse_other(load_study(folder), study, folder)
            run.fingerprints.refuse_changed(run._still_used)
            return run
        # first, because a folder with a config.json is a run
        content = {"content": run.fingerprints.now()} if run.fingerprints.all else {}
        write_json(folder / "env.json", about(study) | content)
        write_json(folder / "config.json", to_dict(study))
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run."""
        study = load_study(folder)
        device(study)
        run = cls(study, folder)
        run.fingerprints.refuse_changed(run._still_used)
        return run

    @cached_property
    def resolved(self) -> Resolved:
        """What the settings stand for; looked up once, and taken along to other processes."""
        if self.known is not None:
            return self.known
        if self.round:
            return replace(self, round=0).resolved
        play = self.play()
        # what has been read once need not be there any more
        layout = PlayStore.open(play.path / "store").meta.layout if play.complete else None
        return resolve(self.study, layout=layout)

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """Of what the settings only name."""
        return Fingerprints(self.study, self.folder)

    @property
    def _still_used(self) -> list[str]:
        """Names on which stages depend that are not complete; the arms of a study look for themselves."""
        if self.study.arms or not self.fingerprints.all:
            return []
        models = [self.world_model(seed) for seed in self.study.model_seeds]
        models += [side.world_model(seed) for seed, side in self.jurors().items()]
        models += [side.world_model(seed) for side in self.rounds() for seed in self.study.seeds]
        read, trained = self.play().complete, all(one.complete for one in models)
        done = dict.fromkeys((PLAY, LABELS, *self.fingerprints.more_play), read) | {NAMED_BY: trained}
        done |= dict.fromkeys(self.fingerprints.losses, trained)
        # a judge judges as long as there is something to judge
        return [name for name in self.fingerprints.all if name in self.fingerprints.envs or not done.get(name)]

    # What it goes on from ---------------------------------------------------------------------------------------------

    @cached_property
    def before(self) -> Run | None:
        """The run whose world models, classifiers and BC this one goes on training; None if it begins with nothing."""
        if self.round:
            return replace(self, round=self.round - 1)
        if self.study.from_run is None:
            return None
        run = Run.open(Path(self.study.from_run))
        return run._jurors_side if self.held_out else run

    def _goes_on(self, seed: int, task: str | None = None, stage: str = "") -> dict[str, Any]:
        """For what made an artefact: the one that it goes on from, if it does."""
        if self.before is None:
            return {}
        found = self.before.world_model(seed) if task is None else self.before.task(seed, task, stage)
        return {"from": found.digest}

    # Artefacts --------------------------------------------------------------------------------------------------------

    @cached_property
    def cache(self) -> Cache:
        """Where the artefacts lie: the run's own folder, its study's if it is an arm, or a folder that runs share."""
        if self.study.cache is not None:
            return Cache(self.study.cache, shared=True)
        return Cache(self.study_folder / "cache")

    @property
    def study_folder(self) -> Path:
        """The folder of the study that this run is an arm of, or its own."""
        study = self.folder.parent.parent
        return study if self.folder.parent.name == ARMS and is_run(study) else self.folder

    def artefacts(self) -> dict[str, Artefact]:
        """All of the run's, by their place."""
        found = {"play": self.play()}
        found |= {f"seed{seed}/world_model": self.world_model(seed) for seed in self.study.model_seeds}
        found |= {f"seed{seed}/fidelity": self.fidelity(seed) for seed in self.study.seeds}
        extra = [seed for seed in self.study.model_seeds if seed not in self.study.seeds]
        found |= {f"seed{s}/{task}/success": self.task(s, task, "success") for s in extra for task in self.study.tasks}
        if learns(self.study):
            places = [(s, t, g) for s in self.study.seeds for t in self.study.tasks for g in STAGES]
            found |= {f"seed{s}/{task}/{stage}": self.task(s, task, stage) for s, task, stage in places}
            judged = [(s, t, env) for s in self.study.seeds for t in self.study.tasks for env in self.study.evaluate_in]
            found |= {f"seed{s}/{task}/{judged_in(env)}": self.judged(s, task, env) for s, task, env in judged}
        for seed, side in self.jurors().items():
            # that of an arm may be of other pictures than its jurors'
            found |= {f"{JURY}/play": side.play()} if side.play().digest != self.play().digest else {}
            found[f"{JURY}/seed{seed}/world_model"] = side.world_model(seed)
            known = {f"{JURY}/seed{seed}/{task}/success": side.task(seed, task, "success") for task in self.study.tasks}
            found |= known
        for side in self.rounds():
            found |= side._of_round()
        return found

    def _of_round(self) -> dict[str, Artefact]:
        """The artefacts of a side on which recorded episodes have been gone on with, by their place in the run."""
        found: dict[str, Artefact] = {}
        for seed in self.study.seeds:
            where = f"{self.prefix}seed{seed}"
            found |= {f"{where}/{task}/recorded": self.recorded(seed, task) for task in self.study.tasks}
            found |= {f"{where}/play": self.play(seed), f"{where}/world_model": self.world_model(seed)}
            places = [(task, stage) for task in self.study.tasks for stage in STAGES]
            found |= {f"{where}/{task}/{stage}": self.task(seed, task, stage) for task, stage in places}
        return found

    def rounds(self) -> list[Run]:
        """The sides on which episodes of its policies are recorded and gone on with, in order; none unless asked."""
        real = self.study.real
        if self.round or self.held_out or not real.episodes or not learns(self.study):
            return []
        return [replace(self, round=number) for number in range(1, real.rounds + 1)]

    def jurors(self) -> dict[int, Run]:
        """Where policies cannot be evaluated in a simulator: the side of their jurors, by the seed of each."""
        if not learns(self.study) or benchmark_class(self.study.env).simulates:
            return {}
        return dict.fromkeys(range(self.study.recorded.jurors), self._jurors_side)

    @cached_property
    def _jurors_side(self) -> Run:
        """Of an arm it is its study's, so that all arms have the same jurors, whose artefacts the study shows."""
        if self.study_folder == self.folder:
            return replace(self, held_out=True)
        return Run(judges_of(load_study(self.study_folder), self.study), self.study_folder, held_out=True)

    def judgements(self) -> dict[str, Path]:
        """Evaluations in other simulators that the run shows, those that `worldaction eval` made as well, by place."""
        where = self.folder / "artefacts"
        found = sorted(where.glob(f"seed*/*/{JUDGED}*/manifest.json"))
        return {path.parent.relative_to(where).as_posix(): path.parent for path in found}

    def _artefact(self, place: str, made_by: dict[str, Any]) -> Artefact:
        # other devices, kernels and versions of ours give other numbers
        made_by |= {"device": self.study.device, "kernels": self.study.kernels, "version": __version__}
        where = f"{self.prefix}{place}"
        return self.cache.artefact(place.rpartition("/")[2], made_by, link=self.folder / "artefacts" / where)

    def play(self, seed: int | None = None) -> Artefact:
        """Play data, shared by all seeds; of a round, with all that was recorded of the policies of a seed."""
        study = self.study
        if self.round:
            assert seed is not None
            assert self.before is not None
            recorded = [self.recorded(seed, task).digest for task in study.tasks]
            return self._artefact(f"seed{seed}/play", {"before": self.before.play(seed).digest, "recorded": recorded})
        if study.play is not None:
            made_by: dict[str, Any] = {
                "play": str(Path(study.play).resolve()),
                "size": study.table.image_size,
                "rule": _READ,
                **self.fingerprints.part(PLAY, *self.fingerprints.more_play),
            }
            if not benchmark_class(study.env).labels_scenes:
                asked = {"scale": study.recorded.scale, "success": study.recorded.success}
                # an environment brings actions to its own units, and calls the task its own name
                made_by |= {"attempts": asked, "held_out": study.success.held_out, "tasks": study.tasks, **self._env}
                made_by |= self.fingerprints.part(LABELS, PLAY, *self.fingerprints.more_play, *self.fingerprints.envs)
            if study.more_play:
                made_by["more"] = [str(Path(path).resolve()) for path in study.more_play]
        else:
            made_by = {"table": self._table_of_play, "data": to_dict(study.data), "tasks": study.tasks}
            made_by |= {**self._env, "stress": switched_on(stress_of_play(study.stress)), "rule": _PLAY}
            made_by["held_out"] = {"share": study.success.held_out, "demos": study.held_out_demos}
            made_by |= self.fingerprints.part(*self.fingerprints.envs)
        return self._artefact("play", made_by)

    def recorded(self, seed: int, task: str) -> Artefact:
        """Of a round: episodes of the policy of the round before."""
        assert self.before is not None
        made_by = {
            "ppo": self.before.task(seed, task, "ppo").digest,
            "episodes": self.study.real.episodes,
            "round": self.round,
            "table": to_dict(self.study.table),
            "stress": self._stress,
            **self._env,
            **self.fingerprints.part(*self.fingerprints.envs),
        }
        return self._artefact(f"seed{seed}/{task}/recorded", made_by)

    def world_model(self, seed: int) -> Artefact:
        """The trained world model of a seed."""
        made_by = {
            "play": self.play(seed).digest,
            "world_model": self._section("world_model"),
            "losses": self.study.losses,
            "hidden_actions": self.study.stress.hidden_actions,
            **self._hidden,
            "seed": seed,
            "threads": self.threads,
            **({"split": "validation"} if self.held_out else {}),
            **self._goes_on(seed),
            **({} if self.before is None else {"share": self.study.real.share}),
            **self.fingerprints.part(NAMED_BY, *self.fingerprints.losses, *self.fingerprints.cores),
        }
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
        """One of the stages of a task: success, clone, sampler, ppo (whatever improves the policy), evaluation."""
        of_stage = {
            "success": self._success,
            "clone": self._clone,
            "sampler": self._sampler,
            "ppo": self._improvement,
            "evaluation": self._evaluation,
        }
        made_by = {"seed": seed, "task": task, **of_stage[stage](seed, task)}
        return self._artefact(f"seed{seed}/{task}/{stage}", made_by)

    def _success(self, seed: int, task: str) -> dict[str, Any]:
        # recorded play does not say who labels it, nor how strictly
        stress = switched_on(stress_of_play(self.study.stress)) if self.study.play is not None else {}
        return {
            **({"stress": stress} if stress else {}),
            "world_model": self.world_model(seed).digest,
            "success": self._section("success"),
            "scene": self.study.table.scene,
            **({} if benchmark_class(self.study.env).labels_scenes else {"last": self.study.recorded.last}),
            **self._goes_on(seed, task, "success"),
            **self._env,
            **self.fingerprints.part(*self.fingerprints.envs),
        }

    def _clone(self, seed: int, task: str) -> dict[str, Any]:
        return {
            "world_model": self.world_model(seed).digest,
            "policy": self._section("policy"),
            "clone": self._section("clone"),
            **self._goes_on(seed, task, "clone"),
            **self.fingerprints.part(*self.fingerprints.policies),
        }

    def _sampler(self, seed: int, task: str) -> dict[str, Any]:
        options = self.study.evaluation
        made_by: dict[str, Any] = {"clone": self.task(seed, task, "clone").digest, "episodes": options.sampler_episodes}
        if not options.sampler_episodes:
            return made_by
        return made_by | {
            # they lie before those of the curve
            "before": options.curve_episodes,
            "table": to_dict(self.study.table),
            "stress": self._stress,
            **self._env,
            **self._starts,
            **self.fingerprints.part(STARTS, *self.fingerprints.envs),
        }

    def _improvement(self, seed: int, task: str) -> dict[str, Any]:
        made_by = {
            "success": self.task(seed, task, "success").digest,
            "clone": self.task(seed, task, "clone").digest,
            # settings of more control steps than an episode has come to the same
            "update": self._section("update") | {"horizon": self.study.dream_steps},
            "table": to_dict(self.study.table),
            "curve": self.study.evaluation.curve_episodes,
            "measured": self.study.evaluation.dreams,
            **self._env,
        }
        if jurors := self.study.jurors(seed):
            made_by["jurors"] = [self.task(juror, task, "success").digest for juror in jurors]
        if self.study.success.stop_on_no_go:
            made_by["go"] = self.study.success.min_youden
        names = [*self.fingerprints.envs, *self.fingerprints.updates]
        if self.study.evaluation.curve_episodes:
            # points of the curve are measured as the evaluation is
            made_by |= {"stress": self._stress, "every": self.study.update.evaluate_every, **self._starts}
            names.append(STARTS)
        return made_by | self.fingerprints.part(*names)

    def _evaluation(self, seed: int, task: str) -> dict[str, Any]:
        return {
            "ppo": self.task(seed, task, "ppo").digest,
            "sampler": self.task(seed, task, "sampler").digest,
            "evaluation": self._section("evaluation"),
            "stress": self._stress,
            **self._starts,
            **self._jury(task),
            **self.fingerprints.part(STARTS),
        }

    def _jury(self, task: str) -> dict[str, Any]:
        """Who judges, where no simulator does."""
        jurors = [side.task(seed, task, "success").digest for seed, side in self.jurors().items()]
        return {"jurors": jurors} if jurors else {}

    def judged(self, seed: int, task: str, env: str, *, episodes: int | None = None) -> Artefact:
        """The evaluation of a task's policies in another simulator.

        Args:
            seed: whose policies.
            task: which of them.
            env: the simulator, as `--evaluate-in` names it.
            episodes: start states; by default as many as the settings say.
        """
        made_by = {
            "seed": seed,
            "task": task,
            "ppo": self.task(seed, task, "ppo").digest,
            "sampler": self.task(seed, task, "sampler").digest,
            "env": env,
            "table": to_dict(self.study.env_config_of_judge(env).table),
            "gym": to_dict(self.study.gym),
            "episodes": episodes or self.study.evaluation.judged_episodes,
            "first": self.study.evaluation.first,
            "stress": self._stress,
            **self._starts,
            **self.fingerprints.part(STARTS),
        }
        return self._artefact(f"seed{seed}/{task}/{judged_in(env)}", made_by | self.fingerprints.part_of_judge(env))

    def _section(self, name: str) -> dict[str, Any]:
        """A section of the settings, without those on which no result depends."""
        return {k: v for k, v in to_dict(getattr(self.study, name)).items() if k not in FREE.get(name, ())}

    @property
    def _table_of_play(self) -> dict[str, Any]:
        """The table's settings on which what is recorded there depends."""
        table = to_dict(self.study.table)
        if not benchmark_class(self.study.env).limits_play:
            del table["max_steps"]
        return table

    @property
    def _hidden(self) -> dict[str, Any]:
        """The seed that says which episodes' actions are hidden, where play was not made by it."""
        study = self.study
        return {"hidden_by": study.data.seed} if study.play is not None and study.stress.hidden_actions else {}

    @property
    def _env(self) -> dict[str, Any]:
        return {"env": self.study.env, "gym": to_dict(self.study.gym)}

    @property
    def _stress(self) -> dict[str, Any]:
        return switched_on(replace(self.study.stress, hidden_actions=0.0))

    @property
    def _starts(self) -> dict[str, Any]:
        """Where start states come from, if not from seeds."""
        return {} if self.study.starts is None else {"starts": str(Path(self.study.starts).resolve())}

    # Beside the artefacts ---------------------------------------------------------------------------------------------

    def publish(self, place: str, artefact: Artefact) -> None:
        """Show a complete artefact in the run's folder: its link, and its files under names for people."""
        artefact.show()
        # what is left by a process that was killed between the manifest and the end of its stage
        with suppress(OSError):
            (artefact.path / CHECKPOINT).unlink(missing_ok=True)
        for source, target in self.shown(place, artefact):
            _link(source, target)

    def shown(self, place: str, artefact: Artefact) -> Iterator[tuple[Path, Path]]:
        """Files of an artefact that people look for, and the same ones in the run's folder."""
        for source, target in _published(place, artefact.path):
            yield source, self.folder / target

    def reused(self) -> list[str]:
        """Places whose artefacts were complete before the run linked to them."""

        def before(artefact: Artefact) -> bool:
            link, manifest = artefact.link, artefact.path / "manifest.json"
            return link is not None and link.is_symlink() and link.lstat().st_mtime > manifest.stat().st_mtime

        return [place for place, artefact in self.artefacts().items() if artefact.complete and before(artefact)]

    def arms(self) -> dict[str, Run]:
        """The runs that this one compares, by their name: those of its arms, and none if it has none.

        What they leave of the workers to each world model is the same for all, for it is part of what makes it.
        """
        found = arms_of(self.study)
        models = {Run(arm.study, self.folder).world_model(self.study.seeds[0]).digest for arm in found}
        share = max(1, self.study.workers // max(1, len(models)))
        return {arm.name: Run(replace(arm.study, workers=share), self.folder / ARMS / arm.slug) for arm in found}

    @property
    def prefix(self) -> str:
        """What the names of metrics and places begin with: nothing, or that they are of jurors or of a round."""
        return f"{JURY}/" if self.held_out else f"{REAL}{self.round}/" if self.round else ""

    @property
    def log(self) -> Path:
        """Where the console's lines are kept."""
        return self.folder / "console.log"

    @property
    def boards(self) -> Path:
        """Where TensorBoard's files are."""
        return self.folder / "tensorboard"

    @property
    def threads(self) -> int:
        """Threads of a world model's training: the cores, shared by the seeds that train side by side."""
        return max(1, self.study.workers // len(self.study.seeds))

    @property
    def command(self) -> str:
        """What the user types to go on."""
        program = _PROGRAMS.get(benchmark_class(self.study.env).program, "worldaction train")
        return f"{program} --resume {self.folder}"


def is_run(folder: Path) -> bool:
    """Whether a folder is one of a run."""
    return (folder / "config.json").exists()


def cache_folder(name: str | None) -> str | None:
    """The folder of `--cache`, as an absolute path; of a run it is the one of its artefacts."""
    if name is None:
        return None
    folder = Path(name)
    if is_run(folder):
        return str(Run(load_study(folder), folder).cache.folder.resolve())
    return str(folder.resolve())


def settings_of(study: Study) -> str:
    """A short hash of a study: of what its results depend on, and not of where artefacts lie."""
    values = to_dict(replace(study, run_dir=None))
    left_out = {"cache", "kernels"} | (set() if study.arms else {"arms"})
    # studies of before there were these are the same ones
    left_out |= {name for name in ("more_play", "from_run") if not values[name]}
    left_out |= {"real"} if not (study.real.episodes or study.from_run) else set()
    return digest({name: value for name, value in values.items() if name not in left_out})


def _published(place: str, path: Path) -> Iterator[tuple[Path, str]]:
    """Files of an artefact that people look for, and their names in the run's folder."""
    parts = place.split("/")
    again = parts.pop(0) if parts[0].startswith(REAL) else ""
    if parts[-1] == "fidelity":
        for film in sorted(path.glob("open_loop-*")):
            yield film, f"videos/{film.name.replace('open_loop-', f'open_loop-{parts[0]}-', 1)}"
    elif parts[-1].startswith(JUDGED):
        yield path / "evaluation.json", f"evaluation/{parts[-1]}/{parts[1]}-{parts[0]}.json"
    elif parts[-1] == "evaluation":
        name, end = f"{parts[1]}-{parts[0]}", f"-{again}" if again else ""
        yield path / "evaluation.json", f"evaluation/{f'{again}/' if again else ''}{name}.json"
        for film in sorted(path.glob("film.*")):
            yield film, f"videos/{name}{end}{film.suffix}"
        for file in sorted(path.glob("policies/*/*")):
            yield file, f"policies/{name}-{file.parent.name}{end}/{file.name}"


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links. Neither is ever changed in place."""
    if target.exists() and target.samefile(source):
        return
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


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
