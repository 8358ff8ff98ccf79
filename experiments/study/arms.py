"""Arms: settings that one study compares, each written as its changes of the study's own settings.

    ARM     = [NAME:] CHANGE,CHANGE,...        NAME of letters, digits and . _ -; NAME: alone changes nothing
    CHANGE  = SECTION.OPTION=VALUE             an option of the command line: update.bc=0, stress.distractors=0.5
            | LOSS+LOSS+...                    the losses of --losses, instead of all that there were
    LOSS    = NAME[=SCALE][,OPTION=VALUE...]   what is not said is as in the preset; or module:Class

An option of a loss has no dot in its name and belongs to the loss before it: `reconstruction+kl=0.3,free_nats=1+mine`
is three losses. Values of lists are joined by +, too: `world_model.cameras=rgb_static+rgb_gripper`.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final, NamedTuple

from envs.benchmark import benchmark_class
from experiments.study.settings import PRESETS, Study
from worldaction.config import to_dict
from worldaction.errors import UserError, unknown
from worldaction.extension import from_text
from worldaction.losses.registry import LOSSES, merge, parse

_NAME: Final = re.compile(r"([A-Za-z0-9._-]+):(.*)", re.DOTALL)
_OVERRIDE: Final = re.compile(r"([A-Za-z_-]+)\.([A-Za-z_0-9-]+)=(.*)", re.DOTALL)
_LONGEST: Final = 60


JUDGED_ALIKE: Final = (
    ("recorded", "jurors"),
    ("recorded", "success"),
    ("recorded", "scale"),
    ("success", "held_out"),
    ("evaluation", "dreams"),
)
"""Settings that say who judges the policies of a recording, and from where: the same for all arms."""


class Arm(NamedTuple):
    """One of the settings that are compared."""

    name: str
    """As it is shown."""
    study: Study
    """Its settings: those of the study, changed."""

    @property
    def slug(self) -> str:
        """The name of its folder."""
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-.")
        return safe[:_LONGEST] or "arm"


def arms_of(study: Study) -> list[Arm]:
    """The settings that a study compares; none if it compares none.

    Args:
        study: with `arms`, which the arms themselves have none of.

    Raises:
        UserError: a change that cannot be read, or arms that cannot be told apart.
    """
    if not study.arms:
        return []
    base = replace(study, arms=(), run_dir=None)
    arms = [_arm(text, base) for text in study.arms]
    if len(arms) == 1:
        raise UserError(f"--arms {study.arms[0]} is one arm, which compares nothing; add another, such as base:")
    _tell_apart(arms)
    return arms


def judges_of(whole: Study, arm: Study) -> Study:
    """The settings of the jurors that judge an arm of a study of recorded data: the study's own.

    By jurors of the arms' settings a comparison would compare jurors, too.

    Args:
        whole: the study, with its arms.
        arm: one of them.
    """
    found = replace(whole, arms=(), run_dir=None, workers=arm.workers)
    for part, option in JUDGED_ALIKE:
        section = replace(getattr(found, part), **{option: getattr(getattr(arm, part), option)})
        found = replace(found, **{part: section})
    return found


def _arm(text: str, base: Study) -> Arm:
    named = _NAME.fullmatch(text)
    name, rest = named.groups() if named else (text, text)
    if not text:
        raise UserError("--arms '' says nothing; write base: for the settings as they are")
    try:
        return Arm(name, _changed(base, rest))
    except UserError as error:
        hint = f" ({name} before the colon is read as the arm's name)" if named else ""
        raise UserError(f"--arms {text!r}{hint}: {error}") from None


def _tell_apart(arms: list[Arm]) -> None:
    for i, arm in enumerate(arms):
        for other in arms[:i]:
            if arm.slug.lower() == other.slug.lower():
                raise UserError(f"--arms: two arms are called {arm.slug!r}; name one of them, as in NAME:CHANGES")
            if to_dict(arm.study) == to_dict(other.study):
                raise UserError(f"--arms: {other.name!r} and {arm.name!r} are the same settings; leave one out")
            for part, option in JUDGED_ALIKE:
                ours, theirs = (getattr(getattr(one.study, part), option) for one in (arm, other))
                if not benchmark_class(arm.study.env).simulates and ours != theirs:
                    name = f"{part}.{option.replace('_', '-')}"
                    raise UserError(
                        f"--arms: {other.name!r} and {arm.name!r} differ in {name}, by which the policies of a"
                        f" recording are judged; give --{name} for all"
                    )
            for option in ("episodes", "first"):
                if getattr(arm.study.evaluation, option) != getattr(other.study.evaluation, option):
                    raise UserError(
                        f"--arms: {other.name!r} and {arm.name!r} differ in evaluation.{option}, and are compared "
                        f"start by start; give --evaluation.{option} for all"
                    )


# Changes --------------------------------------------------------------------------------------------------------------


def _changed(base: Study, text: str) -> Study:
    """The settings after all changes."""
    losses: list[str] = []
    study = base
    before_is_loss = False
    for part in text.split(",") if text else []:
        override = _OVERRIDE.fullmatch(part)
        if override:
            study = _override(study, *override.groups())
        elif re.fullmatch(r"[\w-]+\.[\w-]+", part):
            raise UserError(f"{part!r} has no value; write {part}=VALUE")
        elif before_is_loss or not losses:
            losses.append(part)
        else:
            raise UserError(f"{part!r} follows an option and is no option; write SECTION.OPTION=VALUE, losses first")
        before_is_loss = not override
    return replace(study, losses=_losses(",".join(losses), base)) if losses else study


def _losses(text: str, base: Study) -> tuple[str, ...]:
    """A list joined by +, completed as `--losses` is; a + before a digit is one of a number."""
    # what the study has left out was there in the preset, and comes back as it was
    known = {parse(spec).target: spec for spec in (*_preset_losses(base), *base.losses)}
    found = merge(re.split(r"\+(?![0-9])", text), tuple(known.values()))
    targets = [parse(spec).target for spec in found]
    for target in targets:
        LOSSES.check(parse(target))
        if targets.count(target) > 1:
            raise UserError(f"loss {target!r} is listed twice; name each loss once")
    return found


def _preset_losses(base: Study) -> tuple[str, ...]:
    return PRESETS[base.preset].losses if base.preset in PRESETS else ()


def _override(study: Study, section: str, option: str, text: str) -> Study:
    """One option of a section, as the command line has them."""
    section, option = section.replace("-", "_"), option.replace("-", "_")
    section = {"ppo": "update"}.get(section, section)
    sections = [field.name for field in fields(study) if is_dataclass(getattr(study, field.name))]
    if section not in sections:
        raise unknown("section", section, sections)
    config = getattr(study, section)
    kinds = typing.get_type_hints(type(config))
    if option not in kinds:
        raise unknown(f"option of {section}:", option, kinds)
    value = from_text(kinds[option], text, f"{section}.{option}")
    return replace(study, **{section: replace(config, **{option: value})})


def differences(arms: Mapping[str, Study]) -> dict[str, dict[str, Any]]:
    """What tells the arms apart: arm -> setting -> value, for the settings that differ between any two."""
    from worldaction.io.artefact import flatten

    flat = {name: flatten(to_dict(study)) for name, study in arms.items()}
    settings = {setting: None for values in flat.values() for setting in values}
    differing = [s for s in settings if len({str(values.get(s)) for values in flat.values()}) > 1]
    return {name: {s: values.get(s) for s in differing} for name, values in flat.items()}
