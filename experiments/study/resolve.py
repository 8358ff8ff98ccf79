"""What a study's settings stand for, looked up once: environment, data, sizes. What cannot work is refused here.

Stages take the result; nothing below parses a text again or opens the recorded data set a second time.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.bc import clone
from agents.imagination import FirstFrames
from agents.policies.base import PolicyHead
from agents.policies.registry import POLICIES
from agents.updates.base import Update
from agents.updates.registry import UPDATES
from envs.benchmark import Benchmark, benchmark_class, open_benchmark
from envs.recorded.benchmark import attempts_of
from envs.tasks import SENTENCES
from experiments.study.checks import check_judges, check_lengths, check_start_states, check_tasks, learns
from experiments.study.machine import device
from experiments.study.settings import Study
from worldaction.config import sizes_of
from worldaction.errors import UserError
from worldaction.extension import Family
from worldaction.losses.tools.contract import enforce
from worldaction.play.held_out import HeldOut
from worldaction.play.inspect.conventions import check_conventions
from worldaction.play.layout import MAX_ACTION
from worldaction.play.readers.joined import in_units_of, joined
from worldaction.play.readers.source import Source, check_intact, open_source
from worldaction.spec import ACTION, Layout
from worldaction.success import SuccessClassifier
from worldaction.world_model.model import ModelConfig, WorldModel

LOGGER = logging.getLogger("worldaction")
LOOKED_AT = 20
"""Episodes whose first frames say whether actions have to be scaled."""


@dataclass(frozen=True)
class Resolved:
    """What settings stand for. It travels to other processes, without the recorded set."""

    device: torch.device
    benchmark: Benchmark
    source: Source | None
    """The recorded set that play is read from; None where play is generated."""
    layout: Layout
    """What a frame of the play holds."""
    model: ModelConfig
    """What the world model is built from."""
    head: tuple[type[PolicyHead], Any]
    """The policy head, and its options."""
    update: tuple[type[Update], Any]
    """The policy update, and its options."""
    learns: bool
    """Whether policies are learned."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "source": None}


def resolve(study: Study, *, source: Source | None = None, layout: Layout | None = None) -> Resolved:
    """Look up what a study's settings stand for.

    Args:
        study: the settings.
        source: its recorded set, if it is open already.
        layout: of its play, if that is there already, so that the recorded set need not be.

    Raises:
        UserError: something does not exist, or does not fit; names the option.
    """
    benchmark = open_benchmark(study.env_config)
    if study.play is not None and layout is None:
        source = source_of(study) if source is None else source
        layout = source.layout
    layout = layout or benchmark.layout
    return Resolved(
        device=device(study),
        benchmark=benchmark,
        source=source,
        layout=layout,
        model=model_config(study, layout),
        head=_member(POLICIES, study.policy),
        update=_member(UPDATES, study.update),
        learns=learns(study),
    )


def _member(family: Family, section: Any) -> tuple[Any, Any]:
    """The class that a section of the settings names, and its options, which begin as the section says."""
    spec = family.parse(section.name)
    cls = family.find(spec.target)
    return cls, family.options(cls, spec.options, defaults=vars(section))


def open_recorded(path: str) -> Source:
    """A recorded data set of any format, of which some episodes are held out.

    Raises:
        UserError: it is none, or its actions are not what they are taken for.
    """
    source = open_source(path, names=SENTENCES)
    return HeldOut(source, layout=check_conventions(source))


def source_of(study: Study) -> Source:
    """The recorded data set of a study; where the recording says what succeeds, with its attempts.

    Raises:
        UserError: as `open_recorded`; or nothing says which attempts succeeded.
    """
    if benchmark_class(study.env).labels_scenes:
        return joined([open_recorded(path) for path in study.plays])
    benchmark = open_benchmark(study.env_config)
    only = study.tasks[0] if benchmark.simulates and len(study.tasks) == 1 else ""
    found: list[Source] = []
    for number, path in enumerate(study.plays):
        source = open_source(path, names=SENTENCES)
        # an environment has units of its own; else they are those of the first set
        source = benchmark.scaled(source) if benchmark.simulates or not found else in_units_of(found[0], source)
        _check_range(source)
        layout, share = check_conventions(source), study.success.held_out
        found.append(attempts_of(source, number, study.recorded, share=share, layout=layout, only=only))
    return joined(found)


def _check_range(source: Source) -> None:
    """Refuse actions that have to be scaled before anything is written: a look at the first frames says so."""
    for number in range(min(len(source.episodes), LOOKED_AT)):
        block = next(iter(source.blocks(number, image_size=0)), None)
        largest = 0.0 if block is None else float(np.abs(block[ACTION]).max())
        if largest > MAX_ACTION:
            raise UserError(
                f"{source.path}: an action of episode {number} is {largest:g}, beyond [-1, 1]; add --scale minmax, and"
                " policies give the robot's own units back"
            )


def naming_model(study: Study) -> WorldModel:
    """The world model of `--world-model.named-by`, with its inverse model; its core may be the study's own."""
    folder, core = study.world_model.named_by, study.world_model.core
    assert folder is not None
    return WorldModel.load(Path(folder), losses=("inverse_dynamics",), core=core if ":" in core else None)


def seen_through(study: Study, layout: Layout) -> Study:
    """A study of recorded play as it can be: through its cameras where it has none of those that were asked for.

    And without a pose where no proprioception was recorded.
    """
    if not layout.robot and study.world_model.pose != "none":
        LOGGER.warning("%s has no robot_obs, so the world model carries no pose", study.play)
        study = replace(study, world_model=replace(study.world_model, pose="none"))
    if set(layout.cameras) & set(study.world_model.cameras):
        return study
    return replace(study, world_model=replace(study.world_model, cameras=layout.cameras))


def model_config(study: Study, layout: Layout) -> ModelConfig:
    """What the study's world model is built from.

    Args:
        study: the settings.
        layout: what a frame of the play data holds.
    """
    config = ModelConfig(
        **sizes_of(study.world_model), image_size=study.table.image_size, losses=study.losses, layout=layout
    )
    config.check_cameras()
    return config


# What cannot work -----------------------------------------------------------------------------------------------------


def check_resolved(study: Study, resolved: Resolved) -> None:
    """Refuse what cannot work, before anything is computed.

    Raises:
        UserError: names the option, or what the data lack.
    """
    check_tasks(study)
    if resolved.learns:
        check_start_states(study, resolved.benchmark)
        check_judges(study, resolved.layout)
    elif study.evaluate_in:
        raise UserError(f"--evaluate-in {study.evaluate_in[0]}: this study learns no policies; leave it out")
    source = resolved.source
    if source is not None:
        check_intact(source)
        check_lengths(study, source.episodes)
        if resolved.learns:
            _check_demonstrated(study, source, resolved.benchmark)
    if study.world_model.named_by is not None:
        naming_model(study)
    # built once for nothing: sizes and losses may not fit, and a loss of the user's may break its contract
    model = WorldModel(resolved.model)
    enforce(model, frames=study.world_model.length)
    if resolved.learns:
        _check_policy(study, resolved, model)


def _check_policy(study: Study, resolved: Resolved, model: WorldModel) -> None:
    """Build head and update once, and take a step of cloning: hours of training come before they are needed.

    Raises:
        UserError: they cannot be made with these options, or break their contract.
    """
    (head, options), (update, settings), layout = resolved.head, resolved.update, resolved.layout
    features, chunks = torch.zeros(1, 2, model.feature_size), torch.zeros(2, study.policy.chunk, layout.action)
    one_step = {"steps": 1, "batch": 2, "lr": 1e-3, "weight_decay": 0.0, "ema": 0.0, "seed": 0}
    cloned = clone(head, features, chunks, options=vars(options), binary=layout.binary, **one_step)  # type: ignore[arg-type]
    starts = FirstFrames(model, torch.zeros(1, model.encoder.size))
    decisions = study.dream_steps // study.policy.chunk
    threshold = study.success.threshold
    judge = SuccessClassifier(model.feature_size, hidden=8, dropout=0.0)
    update(model, cloned, judge, starts, settings, decisions=decisions, threshold=threshold, seed=0, jury=None)


def _check_demonstrated(study: Study, source: Source, benchmark: Benchmark) -> None:
    if benchmark.simulates:
        _check_same_robot(study, source.layout, benchmark)
    else:
        _check_judged(study, source)
    training = [episode for episode in source.episodes if episode.split == "training"]
    segments = [segment for episode in training for segment in episode.segments]
    shown = {segment.task for segment in segments if segment.success}
    for task in study.tasks:
        if task not in shown:
            if unknown := sum(segment.task == task and segment.success is None for segment in segments):
                raise UserError(
                    f"{study.play} does not say of {unknown} attempts at {task} whether they succeeded; if they did, "
                    f"convert it first: worldaction data convert {study.play} OUT --option unknown=success"
                )
            known = ", ".join(sorted(shown)) or "none"
            raise UserError(
                f"{study.play} has no training window of {task} that succeeds, only of: {known}; leave it out of"
                " --tasks, or record some"
            )


def _check_judged(study: Study, source: Source) -> None:
    """Jurors learn from what is held out."""
    held_out = [episode for episode in source.episodes if episode.split == "validation"]
    longest = max((episode.length for episode in held_out), default=0)
    if longest < study.world_model.length:
        raise UserError(
            f"--world-model.length {study.world_model.length}: jurors learn from held-out episodes, of which the"
            f" longest of {study.play} has {longest} frames; lower it, or record longer ones"
        )
    shown = {segment.task for episode in held_out for segment in episode.segments if segment.success}
    for task in study.tasks:
        if task not in shown:
            raise UserError(
                f"{study.play} holds out no attempt at {task} that succeeds, from which jurors could learn, only at:"
                f" {', '.join(sorted(shown)) or 'none'}; leave it out of --tasks, or record some more"
            )


def _check_same_robot(study: Study, recorded: Layout, benchmark: Benchmark) -> None:
    simulated = benchmark.layout
    for name in ("robot", "scene", "action") if benchmark.labels_scenes else ("robot", "action"):
        if (one := getattr(recorded, name)) != (other := getattr(simulated, name)):
            raise UserError(
                f"{study.play} has {one} numbers of {name} a frame, {study.env} has {other}; leave out --env, "
                "and the recording alone is learned from"
            )
    if benchmark.labels_scenes:
        return
    missing = [camera for camera in study.world_model.cameras if camera not in simulated.cameras]
    if missing:
        raise UserError(
            f"{study.env} has no camera {missing[0]}, through which {study.play} was recorded, only:"
            f" {', '.join(simulated.cameras) or 'none'}; name those that both have with --world-model.cameras"
        )
