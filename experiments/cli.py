"""The command lines. Nothing heavy is imported before the arguments are known to be good."""

from __future__ import annotations

import math
import os
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from experiments.presets import DEFAULT, EIGHT_TASKS, PRESETS, Study
from worldaction.config import GymConfig, check_stress
from worldaction.errors import UserError, unknown

_USAGE = """python -m experiments.calvin [PRESET] [OPTIONS]

From play data to the verdict BC against PPO in imagination. PRESET is one of {presets}; {default} if none is given.
--resume RUN goes on with an interrupted run; --print-config shows the resolved settings and does nothing."""

_MAY_BE_ZERO = {
    "workers", "seed", "near_misses", "blocks", "warmup", "ramp", "save_every",
    "iterations", "evaluate_every", "curve_episodes", "videos", "frame_extra",
}  # fmt: skip


class Range(NamedTuple):
    """Which finite numbers an option may be; infinite ones could not be written into a run's JSON."""

    words: str
    holds: Callable[[float], bool]


_ANY = Range("a finite number", lambda value: True)
_POSITIVE = Range("a finite number above 0", lambda value: value > 0)
_NO_LESS_THAN_0 = Range("a finite number of 0 or more", lambda value: value >= 0)
_SHARE = Range("0 to 1", lambda value: 0 <= value <= 1)
_BELOW_1 = Range("0 or more and below 1", lambda value: 0 <= value < 1)
_BETWEEN = Range("a number above 0 and below 1", lambda value: 0 < value < 1)
RANGES: Final[Mapping[str, Range]] = {
    **dict.fromkeys(("success_reward", "frame_turn"), _ANY),
    **dict.fromkeys(("lr", "critic_lr", "eps", "clip", "min_std", "target_kl", "frame_scale"), _POSITIVE),
    **dict.fromkeys(("demo_noise", "weight_decay", "contrastive", "bc", "clip_base"), _NO_LESS_THAN_0),
    # more than can be reached is never
    **dict.fromkeys(("max_divergence", "max_imagined"), _NO_LESS_THAN_0),
    **dict.fromkeys(("blind", "decay_from", "gamma", "gae_lambda", "gamma_denoising", "min_time"), _SHARE),
    **dict.fromkeys(("distractors", "positions", "colours", "hidden_actions", "tolerance"), _SHARE),
    **dict.fromkeys(("unimix", "dropout", "held_out", "ema"), _BELOW_1),
    "threshold": _BETWEEN,
    "demo_pace": Range("a number above 0, up to 1", lambda value: 0 < value <= 1),
}
"""Of every option that is no whole number, by its name."""


def guarded(main: Callable[[], None]) -> int:
    """Run a command; user errors become one line, interruptions say how to go on.

    Returns:
        the exit status: 0, 2 for a user error, 130 for an interruption.
    """
    try:
        main()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; go on with --resume and the run's folder\n")
        return 130
    except BrokenPipeError:
        # `... --help | head` has read enough; Python must not try to flush the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def parse_study(arguments: Sequence[str], presets: Mapping[str, Study] = PRESETS) -> tuple[Study, Path | None, bool]:
    """The study a command line asks for.

    Args:
        arguments: without the program's name.
        presets: what it may begin from.

    Returns:
        the study, the folder to resume if any, and whether the settings are only to be printed.
    """
    rest = list(arguments)
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
    name = rest.pop(0) if rest and not rest[0].startswith("-") else DEFAULT
    if name not in presets:
        raise unknown("preset", name, presets)
    said = {argument.partition("=")[0].replace("_", "-") for argument in rest if argument.startswith("--")}
    study = _fitting(_check_options(_parse_options(presets[name], rest)), presets[name], said)
    study = _with_all_tasks(check(study))
    if study.arms:
        from experiments.arms import arms_of

        arms_of(study)
    return study, None, only_print


def _with_all_tasks(study: Study) -> Study:
    """`--tasks all` spelled out."""
    if study.tasks != ("all",):
        return study
    if _has_table(study):
        return replace(study, tasks=EIGHT_TASKS)
    from experiments.benchmarks.general import tasks_of

    return replace(study, tasks=tasks_of(study.env))


def _has_table(study: Study) -> bool:
    """Whether its environment is CALVIN's or the play table, with their tasks and cameras."""
    from envs import CALVIN_ID, PLAY_TABLE_ID

    return study.env in (CALVIN_ID, PLAY_TABLE_ID)


def _fitting(study: Study, preset: Study, said: set[str]) -> Study:
    """A preset of one environment, fitted to another that the user has named."""
    from envs import CALVIN_ID

    if study.starts is not None and study.env != CALVIN_ID:
        raise UserError(f"--starts {study.starts} are states of CALVIN's simulator; add --env {CALVIN_ID}")
    if _has_table(study):
        if study.gym != GymConfig():
            raise UserError(f"--gym.* are options of other environments; leave them out with --env {study.env}")
        return study
    if study.env == preset.env and not any(option.startswith("--gym.") for option in said):
        return study
    from experiments.benchmarks.general import adapted

    # what a preset of this environment says is as good as said
    return adapted(study, said | ({"--tasks", "--table.max-steps"} if study.env == preset.env else set()))


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


def _parse_options(preset: Study, rest: list[str]) -> Study:
    import tyro

    study = tyro.cli(
        Study,
        default=preset,
        args=rest,
        prog="python -m experiments.calvin",
        description=_USAGE.format(presets=", ".join(PRESETS), default=DEFAULT),
        config=(tyro.conf.AvoidSubcommands, tyro.conf.SuppressFixed),
    )
    return replace(study, preset=preset.preset, losses=_complete(study.losses, preset.losses))


def _complete(given: tuple[str, ...], preset: tuple[str, ...]) -> tuple[str, ...]:
    """Losses named on the command line keep the preset's options for what they do not say."""
    if given == preset:
        return given
    from worldaction.losses import merge

    return merge(given, preset)


def check(study: Study) -> Study:
    """Refuse what cannot work, before anything is computed.

    Args:
        study: fitted to its environment, which may have chosen the time limit and has cameras or none.
    """
    _check_options(study)
    chunk, steps = study.policy.chunk, study.table.max_steps
    if steps % chunk:
        raise UserError(f"the time limit of {steps} steps is no multiple of the chunk of {chunk} actions; change one")
    return study


def _check_options(study: Study) -> Study:
    """Refuse options that cannot work in any environment."""
    check_stress(study.stress)
    _check_numbers(study)
    if "all" in study.tasks and len(study.tasks) > 1:
        raise UserError(f"--tasks {' '.join(study.tasks)} names tasks beside all; leave them out, or leave out all")
    lists = {"tasks": study.tasks, "seeds": study.seeds, "losses": study.losses}
    lists["world-model.cameras"] = study.world_model.cameras
    for name, values in lists.items():
        # other environments may have nothing to look through
        if not values and (name != "world-model.cameras" or _has_table(study)):
            raise UserError(f"--{name} is empty; give at least one")
        if len(set(values)) != len(values):
            raise UserError(f"--{name} {' '.join(map(str, values))} names something twice; name each once")
    if study.ppo.trained_steps > study.policy.denoising_steps:
        raise UserError(
            f"--ppo.trained-steps {study.ppo.trained_steps} exceeds the {study.policy.denoising_steps} denoising steps"
        )
    return study


def _check_numbers(config: Any, prefix: str = "--") -> None:
    """Whole numbers count something: refuse those below 1, or below 0 where nothing is a choice. Others have ranges."""
    for field in fields(config):
        value, option = getattr(config, field.name), prefix + field.name.replace("_", "-")
        if is_dataclass(value):
            _check_numbers(value, f"{option}.")
        elif type(value) is int and value < (0 if field.name in _MAY_BE_ZERO else 1):
            raise UserError(f"{option} {value}: give {0 if field.name in _MAY_BE_ZERO else 1} or more")
        elif type(value) is float and not (math.isfinite(value) and RANGES[field.name].holds(value)):
            raise UserError(f"{option} {value}: give {RANGES[field.name].words}")


def load_study(folder: Path) -> Study:
    """The settings of a run."""
    from worldaction.artefact import read_json

    if not (folder / "config.json").exists():
        raise UserError(f"there is no run in {folder}: it has no config.json; give the folder of a run")
    study: Study = from_dict(Study, read_json(folder / "config.json"))
    return study


def from_dict(cls: type, values: dict[str, Any]) -> Any:
    """A configuration from plain JSON values, the inverse of `worldaction.config.to_dict`."""
    hints = typing.get_type_hints(cls)
    known = {f.name for f in fields(cls)}
    for name in values:
        if name not in known:
            raise unknown(f"setting of {cls.__name__}", name, known)
    built = {}
    for name, value in values.items():
        kind = hints[name]
        if is_dataclass(kind):
            value = from_dict(typing.cast(type, kind), value)
        elif isinstance(value, list):
            value = tuple(value)
        built[name] = value
    return cls(**built)


def main() -> None:
    """The `worldaction` command."""
    sys.exit(guarded(lambda: _command(sys.argv[1:])))


def _command(arguments: Sequence[str]) -> None:
    import argparse

    from experiments.data import add_commands

    parser = argparse.ArgumentParser(prog="worldaction", description="World-action models for robot learning.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="what works on this machine, and what to install for the rest")
    losses = commands.add_parser("losses", help="every loss that --losses knows")
    losses.add_argument("--measure", action="store_true", help="and what each costs on this machine, in a minute")
    _add_loss_commands(commands)
    commands.add_parser("train", help="a study in any environment: [PRESET] --env ID [OPTIONS]", add_help=False)
    add_commands(commands)
    report = commands.add_parser("report", help="write a run's report.html again")
    report.add_argument("run", type=Path, help="the run's folder")
    report.add_argument("--markdown", action="store_true", help="print the tables of docs/results.md instead")
    if arguments[:1] == ["train"]:
        from experiments.calvin import main as study

        study(arguments[1:])
        return
    chosen = parser.parse_args(arguments)
    if chosen.command == "doctor":
        from experiments.doctor import table

        print(table())
    elif chosen.command == "losses":
        print(_losses(chosen.measure))
    elif chosen.command == "new":
        _new_loss(chosen.name)
    elif chosen.command == "check":
        _check_loss(chosen.loss)
    elif chosen.command == "data":
        from experiments.data import run

        run(chosen)
    else:
        _report(chosen.run, chosen.markdown)


def _add_loss_commands(commands: Any) -> None:
    for name, what, said in (
        ("new", "write a loss of your own, with its tests", "name"),
        ("check", "does a loss keep to the contract?", "loss"),
    ):
        kinds = commands.add_parser(name, help=what).add_subparsers(dest="kind", required=True)
        kinds.add_parser("loss", help=what).add_argument(
            said, help={"name": "its name", "loss": "as for --losses"}[said]
        )


def _losses(measure: bool) -> str:
    from worldaction.losses import available, describe

    if not measure:
        return describe()
    from worldaction.losses.cost import BASE, costs
    from worldaction.losses.registry import find

    table = describe(costs({name: find(name) for name in available()}))
    return (
        f"{table}\n\ncost: forwards and back, in shares of a training step of a small model with {' and '.join(BASE)}"
    )


def _new_loss(name: str) -> None:
    from worldaction.losses.scaffold import new_loss

    loss, test = new_loss(name, Path())
    title = "".join(part.capitalize() for part in name.split("_"))
    print(f"{loss} and {test} are written. Next:\n")
    print(f"  worldaction check loss {name}:{title}\n  python -m pytest {test}")
    print(f"  python -m experiments.calvin debug --losses reconstruction kl {name}:{title}=1")


def _check_loss(text: str) -> None:
    from worldaction.losses import parse
    from worldaction.losses.contract import examine, variant
    from worldaction.losses.cost import costs
    from worldaction.losses.registry import find

    spec, wrong = parse(text), 0
    cls = find(spec.target)
    for demand, found in examine(variant(cls, spec.options) if spec.options else cls):
        print(f"{'ok   ' if not found else 'WRONG'}  {demand}")
        for sentence in found:
            print(f"       {sentence}")
        wrong += len(found)
    if wrong:
        raise UserError(f"loss {text} breaks the contract in {wrong} places; see above")
    share = costs({text: cls}, repeats=1)[text]
    print(f"cost   {100 * share:.1f} % of a training step of a small model with reconstruction and KL")
    print(f"\n{text} keeps to the contract")


def _report(run: Path, as_markdown: bool) -> None:
    from experiments.markdown import markdown
    from experiments.report import write_report
    from experiments.stages import refresh

    refresh(run)
    print(markdown(run) if as_markdown else write_report(run))
