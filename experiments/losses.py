"""Dynamics losses side by side: each beside reconstruction and KL, at every strength of a distraction, and who helps.

python -m experiments.losses [PRESET] [--compare LOSS ...] [--distractors X ...] [--models-only] [OPTIONS of the study]

A study with arms like any other (docs/arms.md), so --resume and --cache work as there. --compare takes losses as
--losses does, and all of the zoo if nothing is named, without those that read the simulator's own numbers.
--models-only trains and measures the world models; --resume RUN then goes on to the policies. --page RUN writes the
page again.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.report import DISTRACTED
from experiments.study.settings import Study
from experiments.study.waiting import choose_waiting
from worldaction.errors import UserError

BASE = "reconstruction+kl"


@dataclass(frozen=True)
class Comparison:
    """What a command line asks for."""

    study: Study
    resume: Path | None
    only_print: bool
    models_only: bool
    page: Path | None = None


def main(arguments: Sequence[str]) -> None:
    """Compare losses as the arguments say.

    Args:
        arguments: without the program's name.
    """
    if "--help" in arguments or "-h" in arguments:
        print(__doc__)
        return
    asked = parse(arguments)
    if asked.only_print:
        print("\n".join(asked.study.arms))
        return
    choose_waiting()
    from experiments.report.pages.loss_page import write_losses

    folder = asked.page
    if folder is None:
        from experiments.study.conduct import conduct

        folder = conduct(asked.study, asked.resume, models_only=asked.models_only)
    page, table = write_losses(folder)
    print(f"{table}\n\n{page}")


# Reading --------------------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str]) -> Comparison:
    """The comparison a command line asks for; see this module's head.

    Raises:
        UserError: it cannot be read, names no loss, or names a run without arms.
    """
    from experiments.study.arms import arms_of
    from experiments.study.options import parse_study
    from experiments.study.settings import load_study

    rest = list(arguments)
    if page := _values(rest, "--page"):
        folder = Path(page[0])
        _need_arms(load_study(folder), folder, "worldaction report")
        return Comparison(Study(), None, False, False, folder)
    compare, strengths = _values(rest, "--compare"), _values(rest, "--distractors")
    models_only = "--models-only" in rest
    if models_only:
        rest.remove("--models-only")
    study, resume, only_print = parse_study(rest)
    if resume is not None:
        if compare or strengths:
            raise UserError("--resume takes the run's own losses; leave out --compare and --distractors")
        _need_arms(study, resume, "python -m experiments.calvin --resume")
        return Comparison(study, resume, only_print, models_only)
    if study.arms:
        raise UserError("--arms are what --compare makes; leave one of them out, or use experiments.calvin")
    study = replace(study, arms=arms(compare or zoo(), strengths))
    arms_of(study)
    return Comparison(study, None, only_print, models_only)


def _need_arms(study: Study, folder: Path, instead: str) -> None:
    """Refuse a run that compares nothing, and name the command that does for it what was asked for."""
    if not study.arms:
        raise UserError(
            f"{folder} has no arms, so there are no losses to compare in it; give the folder of a run that "
            f"python -m experiments.losses began, or use: {instead} {folder}"
        )


def _values(arguments: list[str], option: str) -> tuple[str, ...]:
    """Remove an option and its values, all up to the next option, and return the values."""
    if option not in arguments:
        return ()
    begin = arguments.index(option)
    end = begin + 1
    while end < len(arguments) and not arguments[end].startswith("--"):
        end += 1
    values = tuple(arguments[begin + 1 : end])
    if not values:
        raise UserError(f"{option} is empty; name at least one")
    del arguments[begin:end]
    return values


def zoo() -> tuple[str, ...]:
    """All named losses that can stand beside reconstruction and KL, without those that read privileged numbers."""
    from worldaction.losses.registry import available, find

    return tuple(name for name in sorted(available()) if name not in BASE.split("+") and not find(name).reads)


def arms(losses: Sequence[str], strengths: Sequence[str]) -> tuple[str, ...]:
    """Each loss beside reconstruction and KL, and these alone, at every strength, as `--arms` takes them.

    Args:
        losses: as for `--losses`.
        strengths: of `--stress.distractors`, as text; none leaves the study's own.
    """
    named = {"base": BASE} | {_name(text): f"{BASE}+{text}" for text in losses}
    if len(named) <= len(losses):
        raise UserError(f"--compare {' '.join(losses)} names something twice; name each once, with its options")
    if not strengths:
        return tuple(f"{name}:{text}" for name, text in named.items())
    pairs = [(s, name, text) for s in strengths for name, text in named.items()]
    return tuple(f"{name}{DISTRACTED}{s}:{text},stress.distractors={s}" for s, name, text in pairs)


def _name(text: str) -> str:
    """What an arm is called: the loss, without the module of one's own, and its options."""
    from worldaction.losses.registry import find, parse

    spec = parse(text)
    options = "".join(f"-{key}{value}" for key, value in spec.options)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", f"{find(spec.target).name}{options}")


if __name__ == "__main__":
    from experiments.guard import guarded

    sys.exit(guarded(lambda: main(sys.argv[1:])))
