"""What a study cannot do is said before anything is computed: tasks, starts, lengths. Nothing here needs torch."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from envs.benchmark import Benchmark, benchmark_class, open_benchmark
from experiments.study.settings import Study
from worldaction.config import EvaluationConfig, StressConfig
from worldaction.errors import UserError, unknown
from worldaction.spec import Kind, Layout, Split

AnyEpisode = TypeVar("AnyEpisode", bound=Any)
Name = TypeVar("Name", str, int)
JUDGED: Final = "judged-"
"""What the places of evaluations in other simulators begin with."""
CONTEXT: Final = 8
"""Frames that are seen before open-loop imagination begins."""


def judged_in(env: str) -> str:
    """The place of an evaluation in another simulator, beside a task's stages: the simulator's id, after its slash."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", env.rpartition("/")[2])
    return f"{JUDGED}{name}"


class Span(Protocol):
    """An episode of a source or of a store."""

    @property
    def length(self) -> int:
        """Frames."""
        ...

    @property
    def kind(self) -> Kind:
        """What it was made for."""
        ...

    @property
    def split(self) -> Split:
        """What it is used for."""
        ...


class Planned(NamedTuple):
    """An episode of play that is yet to be made, as a `Span`."""

    kind: Kind
    split: Split
    length: int


def check_tasks(study: Study) -> None:
    """Refuse tasks, start states and play that do not exist, or that are too few.

    Raises:
        UserError: names the option.
    """
    benchmark = benchmark_class(study.env).open(study.env_config)
    if not benchmark.simulates:
        # what a recorded set has is known once it has been read
        return
    for task in study.tasks:
        benchmark.check(task)
        if study.play is not None and not benchmark.labels_recordings(task):
            raise UserError(
                f"{task} cannot be learned from recorded play: which numbers of a frame are its block's depends on the "
                "scene; leave it out of --tasks"
            )
    if study.play is None:
        # attempts may be of any length until they are made
        jobs = benchmark.jobs(study.data, study.tasks)
        check_lengths(study, [Planned(job.kind, job.split, job.frames or sys.maxsize) for job in jobs])
    # those of a recorded set are read when that set is
    if learns(study) and study.starts is None:
        check_start_states(study, benchmark)


def check_judges(study: Study, layout: Layout, *, option: str = "--evaluate-in") -> None:
    """Refuse simulators of `--evaluate-in` that are not here or are of another kind, before anything is computed.

    Args:
        study: the settings.
        layout: what policies see and do.
        option: what names them.

    Raises:
        UserError: names the option, and what is missing.
    """
    for env in study.evaluate_in:
        try:
            config = study.env_config_of_judge(env)
            # whether it has these tasks at all comes before what makes them harder
            plain = open_benchmark(replace(config, stress=StressConfig()))
            for task in study.tasks:
                plain.check(task)
            benchmark = open_benchmark(config)
            for name in ("robot", "action", "null_action", "binary"):
                if (own := getattr(layout, name)) != (other := getattr(benchmark.layout, name)):
                    raise UserError(f"policies of this study have {name} {own}, and there it is {other}; leave it out")
            if missing := [camera for camera in study.world_model.cameras if camera not in benchmark.layout.cameras]:
                raise UserError(f"policies of this study see {missing[0]}, which is not there; leave it out")
            # only a simulator that has been started is known to be installed
            benchmark.make(study.tasks[0]).close()
        except UserError as error:
            raise UserError(f"{option} {env}: {error}") from None
        check_start_states(study, benchmark, judged=study.evaluation.judged_episodes)


def among(asked: Sequence[Name] | None, known: Sequence[Name], kind: str) -> list[Name]:
    """What is asked for of a run's tasks or seeds, each once; all of them if nothing is.

    Raises:
        UserError: it has no such one.
    """
    for name in asked or ():
        if name not in known:
            raise unknown(f"{kind} of this run", str(name), map(str, known))
    return list(dict.fromkeys(asked or known))


def check_paths(study: Study) -> None:
    """Refuse paths at which there is nothing, before torch is imported.

    Raises:
        UserError: names the option.
    """
    for option, path in (*(("--play", path) for path in study.plays), ("--starts", study.starts)):
        if path is not None and not Path(path).exists():
            raise UserError(f"{option}: there is nothing at {path}; give the folder or the file of a data set")


def learns(study: Study) -> bool:
    """Whether policies are learned: there are demonstrations, and a simulator of the same kind."""
    return study.play is None or benchmark_class(study.env).takes_recordings


def measured(episodes: Sequence[AnyEpisode], split: str) -> list[AnyEpisode]:
    """Episodes of a split on which a world model is measured: play, or whatever there is in a set without play."""
    play = [e for e in episodes if e.kind == "play"] or episodes
    return [e for e in play if e.split == split]


def check_lengths(study: Study, episodes: Sequence[Span]) -> None:
    """Episodes are as long as the windows of training and of the measurements, which may be hours later."""
    horizon, length = study.evaluation.horizon, study.world_model.length
    for option, needed, split, found in (
        (f"--world-model.length {length}", length, "training", [e for e in episodes if e.split == "training"]),
        (f"--evaluation.horizon {horizon}", CONTEXT + horizon, "training", measured(episodes, "training")),
        (f"--evaluation.horizon {horizon}", CONTEXT + horizon, "validation", measured(episodes, "validation")),
    ):
        longest = max((e.length for e in found), default=0)
        if not found:
            raise UserError(
                f"there are no episodes of play for {split}: one in ten is kept for validation; take more play, "
                "such as a larger --data.frames or a smaller --data.episode-frames"
            )
        if longest < needed:
            raise UserError(
                f"{option} needs episodes of {needed} frames, the longest for {split} has {longest}; "
                "lower it, or take more and longer play"
            )


class StartStates(NamedTuple):
    """Which start states of a task's fixed list are used for what: no two uses share one."""

    evaluation: range
    """From `--evaluation.first` on."""
    sampler: range
    """On which the cloned policy's sampler is chosen."""
    curve: range
    """Of the points of the curve: the end of the list."""


def start_states(evaluation: EvaluationConfig, total: int) -> StartStates:
    """Numbers of start states, in a list of so many."""
    curve = total - evaluation.curve_episodes
    return StartStates(
        evaluation=range(evaluation.first, evaluation.first + evaluation.episodes),
        sampler=range(curve - evaluation.sampler_episodes, curve),
        curve=range(curve, total),
    )


def check_start_states(study: Study, benchmark: Benchmark, *, judged: int = 0) -> None:
    """Refuse more episodes than there are start states: what is evaluated is looked at by nothing before.

    Args:
        study: the settings.
        benchmark: where the start states are.
        judged: episodes a task, if another simulator judges.

    Raises:
        UserError: says how many there are.
    """
    if not benchmark.simulates:
        for option in ("curve_episodes", "sampler_episodes"):
            if getattr(study.evaluation, option):
                name = option.replace("_", "-")
                raise UserError(f"--evaluation.{name} needs a simulator, and {study.env} has none; set it to 0")
        return
    options, name = study.evaluation, "judged-episodes" if judged else "episodes"
    first, episodes = options.first, judged or options.episodes
    for task in study.tasks:
        total = len(benchmark.starts(task))
        room = max(start_states(options, total).sampler.start - first, 0)
        if not room:
            raise UserError(
                f"--evaluation.{name} {episodes}: of the {total} start states of {task} none is left from number"
                f" {first} (--evaluation.first) on: the curve takes {options.curve_episodes}"
                f" (--evaluation.curve-episodes) and the choice of a sampler {options.sampler_episodes}"
                " (--evaluation.sampler-episodes); lower these"
            )
        if not 1 <= episodes <= room:
            raise UserError(
                f"--evaluation.{name} {episodes}: give 1 to {room}, for there are {total} start states of {task}, "
                f"the first is number {first} (--evaluation.first), the curve takes {options.curve_episodes} "
                f"(--evaluation.curve-episodes) and the choice of a sampler {options.sampler_episodes} "
                "(--evaluation.sampler-episodes)"
            )
