"""A study from the command line: what is asked for, completed by its preset and fitted to its environment, or refused.

Neither torch nor a simulator is needed for it, so that a mistake is answered at once.
"""

from __future__ import annotations

import logging
import typing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from agents.policies.registry import POLICIES
from agents.updates.registry import UPDATES
from envs.benchmark import benchmark_class
from experiments.guard import check_arguments
from experiments.real.go_on import begun_from, check_settings
from experiments.study.arms import arms_of
from experiments.study.checks import check_paths, check_tasks, judged_in
from experiments.study.settings import DEFAULT, PRESETS, Study, load_study
from worldaction.config import (
    EvaluationConfig,
    PolicyConfig,
    StressConfig,
    UpdateConfig,
    check_ranges,
    check_stress,
    to_dict,
)
from worldaction.errors import UserError, unknown
from worldaction.extension import Family, Spec, from_text
from worldaction.losses.registry import LOSSES, merge
from worldaction.world_model.cores.registry import CORES

PROGRAM: Final = "python -m experiments.calvin"
_USAGE = """{program} [PRESET] [OPTIONS]

From play data to the verdict BC against PPO in imagination. PRESET is one of {presets}; {default} if none is given.
--resume RUN goes on with an interrupted run; --play OLD NEW --from RUN goes on training a finished one.
--print-config shows the resolved settings and does nothing."""

LOGGER = logging.getLogger("worldaction")
RESERVED: Final = (
    *("bc", "bc_other", "bc_deterministic", "task", "seed", "env", "limit", "sampler", "choice", "samplers"),
    *(
        "average",
        "n",
        "difference",
        "difference_stochastic",
        "imagined",
        "within",
        "time",
        "dreamed_time",
        "judged",
        "gap",
        "shared",
        "per_seed",
    ),
    *("oracle", "fair", "unchanged", "kept", "iterations", "curve", "classifier", "stop_reason", "real"),
)
"""Keys of evaluations and summaries, beside which the improved policy's own stands."""
RECORDED: Final = "recorded"
"""The environment of studies that learn from recorded data alone."""
_SHORT: Final = {"--policy": "--policy.name", "--update": "--update.name", "--scale": "--recorded.scale"}
_RENAMED: Final = {"--ppo.": "--update.", "--world-model.blind": "--world-model.open-loop"}
_GONE: Final = {
    "--reuse": "--cache, which takes a run's folder or any other",
    "--preset": "the first word, as in: python -m experiments.calvin debug",
    "--more-play": "--play, which takes several sets, as in: --play A B",
    "--from-run": "--from",
}


def parse_study(
    arguments: Sequence[str], presets: Mapping[str, Study] = PRESETS, *, program: str = PROGRAM
) -> tuple[Study, Path | None, bool]:
    """The study a command line asks for.

    Args:
        arguments: without the program's name.
        presets: what it may begin from.
        program: how it was called, for its help.

    Returns:
        the study, the folder to resume if any, and whether the settings are only to be printed.
    """
    check_arguments(arguments)
    rest = _several_plays([_spelled_out(argument) for argument in arguments])
    only_print = "--print-config" in rest
    if only_print:
        rest.remove("--print-config")
    resume = _take(rest, "--resume")
    if resume is not None:
        if rest:
            raise UserError(
                f"--resume takes the run's own settings, so {rest[0]!r} cannot be given with it; leave it out"
            )
        return load_study(Path(resume)), Path(resume), only_print
    before = _take(rest, "--from")
    name = rest.pop(0) if rest and not rest[0].startswith("-") else None
    if before is not None and name is not None:
        raise UserError(f"--from takes that run's own settings, so the preset {name} cannot be given with it")
    if name is not None and name not in presets:
        raise unknown("preset", name, presets)
    preset = presets[name or DEFAULT] if before is None else begun_from(before)
    asked = {argument.partition("=")[0].replace("_", "-") for argument in rest if argument.startswith("--")}
    # whoever says --success.no-stop-on-no-go has said something of --success.stop-on-no-go
    asked |= {option.replace(".no-", ".", 1) for option in asked}
    asked |= set() if before is None else _settled(preset)
    study = fitted(_checked(_parse_options(preset, rest, program)), preset, asked)
    if study.tasks == ("all",):
        study = replace(study, tasks=benchmark_class(study.env).open(study.env_config).tasks)
        study = study if study.play is None else _labelled_by_frames(study)
    for one in [study, *(arm.study for arm in arms_of(study))]:
        check(one)
    return study, None, only_print


def check(study: Study) -> Study:
    """Refuse what cannot work, before anything is computed.

    Args:
        study: fitted to its environment, which may have chosen the time limit and has cameras or none.
    """
    _checked(study)
    check_settings(study)
    chunk = study.policy.chunk
    for what, steps in (("the time limit", study.table.max_steps), ("the dream (--update.horizon)", study.dream_steps)):
        if steps % chunk:
            raise UserError(f"{what} of {steps} steps is no multiple of the chunk of {chunk} actions; change one")
    _check_acting(study)
    if study.device == "cuda":
        # torch alone knows whether there is one
        from experiments.study.machine import device

        device(study)
    if benchmark_class(study.env).knows_itself:
        check_tasks(study)
    return study


def _check_acting(study: Study) -> None:
    """Say which settings cannot act: they change nothing, and whoever gave them thinks that they do.

    Raises:
        UserError: nothing is left of them.
    """
    limit, evaluation = study.table.max_steps, study.evaluation
    if study.update.horizon > limit:
        LOGGER.warning(
            "--update.horizon %d: dreams are as long as the time limit of %d steps at most", study.update.horizon, limit
        )
    if study.play is None and study.clone.demos > study.data.demos:
        LOGGER.warning(
            "--clone.demos %d: there are --data.demos %d of each task, which are all cloned",
            *(study.clone.demos, study.data.demos),
        )
    beyond = [steps for steps in evaluation.within if steps > limit]
    if beyond and evaluation.within != EvaluationConfig().within:
        LOGGER.warning("--evaluation.within %s: beyond the time limit of %d steps", " ".join(map(str, beyond)), limit)


def _spelled_out(argument: str) -> str:
    """An option by the name that it has now."""
    option, equals, value = argument.partition("=")
    option = _SHORT.get(option, option)
    if (gone := option.replace("_", "-")) in _GONE:
        raise UserError(f"{option} is now {_GONE[gone]}")
    for before, now in _RENAMED.items():
        if option.startswith(before):
            option = now + option.removeprefix(before)
    return option + equals + value


def _several_plays(arguments: Sequence[str]) -> list[str]:
    """`--play A B C` or `--play=A B C` as the options that the settings have: the first set, and the others."""
    found = list(arguments)
    at = next((n for n, argument in enumerate(found) if argument.partition("=")[0] == "--play"), None)
    if at is not None:
        first = at + (1 if "=" in found[at] else 2)
        after = next((n for n in range(first, len(found)) if found[n].startswith("--")), len(found))
        if first < after:
            found.insert(first, "--more-play")
    return found


def fitted(study: Study, preset: Study, asked: set[str]) -> Study:
    """A preset of one environment, fitted to another that the user has named.

    Args:
        study: as the user asked for it.
        preset: what it began from.
        asked: the options that the user gave, such as "--tasks".
    """
    if study.play is not None and ("--env" not in asked or study.env == RECORDED):
        study = _recorded(study, asked)
    benchmark = benchmark_class(study.env)
    if study.play is not None or not benchmark.takes_stress:
        study = _without_stress(study, asked)
    if study.play is not None and "--tasks" not in asked and benchmark.simulates:
        study = _labelled_by_frames(study)
    config = study.env_config
    benchmark.open(config)
    if study.env == preset.env:
        if not any(option.startswith("--gym.") for option in asked):
            return study
        # what a preset of this environment says is as good as said
        asked = asked | {"--tasks", "--table.max-steps", "--update.horizon"}
    fit = benchmark.defaults(config, chunk=study.policy.chunk, asked=asked)
    if fit is None:
        return study
    if "--tasks" not in asked:
        study = replace(study, tasks=fit.tasks)
    if fit.max_steps and "--table.max-steps" not in asked:
        study = replace(study, table=replace(study.table, max_steps=fit.max_steps))
    if "--update.horizon" not in asked:
        # that of the preset was chosen for its own environment
        study = replace(study, update=replace(study.update, horizon=0))
    if "--world-model.cameras" not in asked:
        study = replace(study, world_model=replace(study.world_model, cameras=fit.cameras))
    if study.world_model.pose != "none" and "--world-model.pose" not in asked and benchmark.simulates:
        LOGGER.info("no pose is carried: what %s observes need not be a robot that servos drive", study.env)
        study = replace(study, world_model=replace(study.world_model, pose="none"))
    if study.evaluation.videos and not fit.can_film:
        LOGGER.warning("%s draws no pictures here, so nothing is filmed", study.env)
        study = replace(study, evaluation=replace(study.evaluation, videos=0))
    return study


def _settled(study: Study) -> set[str]:
    """Options that are as good as said, for a run has settled them; but for `--gym`, which asks for another fit."""
    from worldaction.io.artefact import flatten

    found = {f"--{name.replace('_', '-')}" for name in flatten(to_dict(study))}
    return {option for option in found if not option.startswith("--gym.")}


def _recorded(study: Study, asked: set[str]) -> Study:
    """A study of recorded data alone; where it names no task, of a world model alone."""
    assert study.play is not None
    check_paths(study)
    # what reads data sets needs torch, and so does all that is left to do
    from worldaction.play.attempts import task_name
    from worldaction.play.readers.source import open_source

    if not any(episode.segments for path in study.plays for episode in open_source(path).episodes):
        return study
    if not benchmark_class(RECORDED).open(replace(study, env=RECORDED, stress=StressConfig()).env_config).tasks:
        LOGGER.warning(
            "%s has no task with a success to learn from and another one that is held out, so a world model is all that"
            " is trained; record more attempts, or say with --recorded.success which succeeded",
            study.play,
        )
        return study
    named = tuple(map(task_name, study.tasks)) if "--tasks" in asked and study.tasks != ("all",) else study.tasks
    for option in ("--evaluation.curve-episodes", "--evaluation.sampler-episodes"):
        if option in asked and getattr(study.evaluation, option.rpartition(".")[2].replace("-", "_")):
            raise UserError(f"{option} needs a simulator, and {study.play} is a recording; leave it out")
    evaluation = replace(study.evaluation, curve_episodes=0, sampler_episodes=0)
    # how few demonstrations presets clone belongs to their own benchmark
    clone = study.clone if "--clone.demos" in asked else replace(study.clone, demos=0)
    # nobody would see that a policy got worse
    success = study.success if "--success.stop-on-no-go" in asked else replace(study.success, stop_on_no_go=True)
    return replace(study, env=RECORDED, tasks=named, evaluation=evaluation, clone=clone, success=success)


def _without_stress(study: Study, asked: set[str]) -> Study:
    """Without the switches that the preset has on for its own play: people who recorded theirs did not know of them."""
    kept = {name: value for name, value in vars(study.stress).items() if f"--stress.{name.replace('_', '-')}" in asked}
    plain = replace(StressConfig(), **kept)
    if plain != study.stress:
        LOGGER.warning("the preset's stress switches are for its own play and environment, and are off here")
    return replace(study, stress=plain)


def _labelled_by_frames(study: Study) -> Study:
    """Without the tasks that cannot be learned from recorded play."""
    kept = tuple(task for task in study.tasks if benchmark_class(study.env).labels_recordings(task))
    if left_out := [task for task in study.tasks if task not in kept]:
        LOGGER.warning("tasks that cannot be learned from recorded play are left out: %s", ", ".join(left_out))
    return replace(study, tasks=kept)


def _take(arguments: list[str], option: str) -> str | None:
    """Remove ``option VALUE`` or ``option=VALUE`` and return the value."""
    for i, argument in enumerate(arguments):
        if argument == option:
            if i + 1 == len(arguments):
                raise UserError(f"{option} needs a value, such as {option} runs/calvin/quick-...")
            value = arguments[i + 1]
            del arguments[i : i + 2]
            return value
        if argument.startswith(option + "="):
            del arguments[i]
            return argument.partition("=")[2]
    return None


def _parse_options(preset: Study, rest: list[str], program: str) -> Study:
    import tyro

    study = tyro.cli(
        Study,
        default=preset,
        args=rest,
        prog=program,
        description=_USAGE.format(program=program, presets=", ".join(PRESETS), default=DEFAULT),
        config=(tyro.conf.AvoidSubcommands, tyro.conf.SuppressFixed),
    )
    return replace(
        study,
        preset=preset.preset,
        losses=_complete(study.losses, preset.losses),
        policy=_section(POLICIES, study.policy),
        update=_section(UPDATES, study.update),
    )


def _complete(given: tuple[str, ...], preset: tuple[str, ...]) -> tuple[str, ...]:
    """Losses named on the command line keep the preset's options for what they do not say."""
    return given if given == preset else merge(given, preset)


def _section(family: Family, section: PolicyConfig | UpdateConfig) -> Any:
    """A section with the options that were written behind its member's name, as far as they are the section's own."""
    spec = family.parse(section.name)
    hints = typing.get_type_hints(type(section))
    own = {key: text for key, text in spec.options if key in hints and key != "name"}
    values = {key: from_text(hints[key], text, f"{family.option} {section.name}: {key}") for key, text in own.items()}
    rest = tuple((key, text) for key, text in spec.options if key not in own)
    family.check(Spec(spec.target, rest))
    return replace(section, name=str(Spec(spec.target, rest)), **values)


def _checked(study: Study) -> Study:
    """Refuse options that cannot work in any environment."""
    check_stress(study.stress)
    check_ranges(study)
    if "all" in study.tasks and len(study.tasks) > 1:
        raise UserError(f"--tasks {' '.join(study.tasks)} names tasks beside all; leave them out, or leave out all")
    lists = {"tasks": study.tasks, "seeds": study.seeds, "losses": study.losses}
    lists["world-model.cameras"] = study.world_model.cameras
    lists["evaluate-in"] = study.evaluate_in
    lists["evaluation.within"] = study.evaluation.within
    for name, values in lists.items():
        # other environments may have nothing to look through
        may_be_empty = name == "evaluate-in" or (
            name == "world-model.cameras" and not benchmark_class(study.env).needs_cameras
        )
        if not values and not may_be_empty:
            raise UserError(f"--{name} is empty; give at least one")
        if len(set(values)) != len(values):
            raise UserError(f"--{name} {' '.join(map(str, values))} names something twice; name each once")
    if len({Path(path).resolve() for path in study.plays}) < len(study.plays):
        raise UserError(f"--play {' '.join(study.plays)} names a set twice; name each once")
    if len({judged_in(env) for env in study.evaluate_in}) < len(study.evaluate_in):
        raise UserError(f"--evaluate-in {' '.join(study.evaluate_in)}: two end in the same name; give one a run")
    if study.env in study.evaluate_in:
        raise UserError(f"--evaluate-in {study.env} is where the study is evaluated anyway; leave it out")
    for family, text in (
        (POLICIES, study.policy.name),
        (UPDATES, study.update.name),
        (CORES, study.world_model.core),
    ):
        family.check(family.parse(text))
    for text in study.losses:
        LOSSES.check(LOSSES.parse(text))
    if study.improved in RESERVED:
        raise UserError(
            f"an update cannot be called {study.improved!r}, which means something else in results; rename it"
        )
    if study.policy.name == "diffusion" and study.update.trained_steps > study.policy.denoising_steps:
        raise UserError(
            f"--update.trained-steps {study.update.trained_steps} exceeds the {study.policy.denoising_steps} denoising"
            " steps"
        )
    return study
