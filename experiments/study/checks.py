"""What a study cannot do is said before anything is computed: tasks, starts, sizes, lengths, recorded play."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple, Protocol

from envs.benchmark import Benchmark, open_benchmark
from experiments.stages.play import measured, naming_model, open_recorded
from experiments.study.run import learns
from experiments.study.settings import Study
from worldaction.config import sizes_of
from worldaction.errors import UserError
from worldaction.losses.tools.contract import enforce
from worldaction.play.layout import Kind
from worldaction.play.readers.source import Source
from worldaction.spec import Layout, Split
from worldaction.world_model.model import ModelConfig, WorldModel

CONTEXT: Final = 8
"""Frames that are seen before open-loop imagination begins."""


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


def check_study(study: Study) -> None:
    """Refuse what cannot work.

    Raises:
        UserError: names the option, or what the data lack.
    """
    benchmark = open_benchmark(study.env_config)
    for task in study.tasks:
        benchmark.check(task)
    if study.play is None:
        # attempts may be of any length until they are made
        jobs = benchmark.jobs(study.data, study.tasks)
        check_lengths(study, [Planned(job.kind, job.split, job.frames or sys.maxsize) for job in jobs])
        layout = benchmark.layout
    else:
        source = open_recorded(study.play)
        check_lengths(study, source.episodes)
        layout = source.layout
        if learns(study):
            _check_demonstrated(study, source, benchmark)
    if study.world_model.named_by is not None:
        naming_model(study.world_model.named_by)
    # built once for nothing: sizes and losses may not fit, and a loss of the user's may break its contract
    enforce(WorldModel(model_config(study, layout)), frames=study.world_model.length)
    if learns(study):
        _check_start_states(study, benchmark)


def seen_by(study: Study) -> Study:
    """A study of recorded play that has none of the cameras that were asked for: it looks through those that it has."""
    if study.play is None:
        return study
    cameras = open_recorded(study.play).layout.cameras
    if set(cameras) & set(study.world_model.cameras):
        return study
    return replace(study, world_model=replace(study.world_model, cameras=cameras))


def check_lengths(study: Study, episodes: Sequence[Span]) -> None:
    """Episodes are as long as the windows of training and of the measurements, which may be hours later."""
    horizon, length = study.evaluation.horizon, study.world_model.length
    for option, needed, split, found in (
        (f"--world-model.length {length}", length, "training", [e for e in episodes if e.split == "training"]),
        (f"--evaluation.horizon {horizon}", CONTEXT + horizon, "training", measured(episodes, "training")),
        (f"--evaluation.horizon {horizon}", CONTEXT + horizon, "validation", measured(episodes, "validation")),
    ):
        longest = max((e.length for e in found), default=0)
        if longest < needed:
            raise UserError(
                f"{option} needs episodes of {needed} frames, the longest for {split} has {longest}; "
                "lower it, or take more and longer play"
            )


def _check_demonstrated(study: Study, source: Source, benchmark: Benchmark) -> None:
    here, there = source.layout, benchmark.layout
    for name in ("robot", "scene", "action"):
        if (one := getattr(here, name)) != (other := getattr(there, name)):
            raise UserError(
                f"{study.play} has {one} numbers of {name} a frame, {study.env} has {other}; leave out --env, "
                "and the world model alone is trained"
            )
    training = [episode for episode in source.episodes if episode.split == "training"]
    shown = {segment.task for episode in training for segment in episode.segments if segment.success}
    for task in study.tasks:
        if task not in shown:
            raise UserError(f"{study.play} has no training window of {task}; leave it out of --tasks, or record some")


def _check_start_states(study: Study, benchmark: Benchmark) -> None:
    """A policy is not tested on the start states of its own curve, nor on another task's."""
    episodes, curve = study.evaluation.episodes, study.evaluation.curve_episodes
    for task in study.tasks:
        total = len(benchmark.starts(task))
        if not 1 <= episodes <= total - curve:
            raise UserError(
                f"--evaluation.episodes {episodes}: give 1 to {total - curve}, for there are {total} start states "
                f"of {task} and the curve takes {curve} (--evaluation.curve-episodes)"
            )


def model_config(study: Study, layout: Layout) -> ModelConfig:
    """The sizes of the study's world model.

    Args:
        study: the settings.
        layout: what a frame of the play data holds.
    """
    config = ModelConfig(
        **sizes_of(study.world_model), image_size=study.table.image_size, losses=study.losses, layout=layout
    )
    config.check_cameras()
    return config
