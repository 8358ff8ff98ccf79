"""`--from RUN`: a study that goes on training what another one has trained, on its recorded sets and new ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.benchmark import START_STATES, benchmark_class
from experiments.study.checks import learns
from experiments.study.fingerprints import LABELS, PLAY
from experiments.study.settings import Study, load_study
from worldaction.config import sizes_of
from worldaction.errors import UserError

if TYPE_CHECKING:
    from experiments.study.run import Run


def begun_from(folder: str) -> Study:
    """The settings of a run, as those that one begins with which goes on from it.

    Raises:
        UserError: there is no run, or none that can be gone on from.
    """
    study = load_study(Path(folder))
    if study.arms:
        raise UserError(f"--from {folder} compares several settings; give one of them: {folder}/arms/NAME")
    if study.play is None:
        raise UserError(
            f"--from {folder} made its play in a simulator; record episodes of its policies and go on with them by"
            " --real.episodes N in a run of its own, with --cache of the first one"
        )
    return replace(study, from_run=str(Path(folder).resolve()), run_dir=None, cache=None)


def check_settings(study: Study) -> None:
    """Refuse settings that differ from those of the run where what it trained would not fit, or would not be held out.

    Raises:
        UserError: names the option.
    """
    _check_rounds(study)
    if study.from_run is None:
        return
    before = begun_from(study.from_run)
    _check_sets(study, before)
    if study.arms:
        raise UserError("--from goes on with one run's settings; leave out --arms")
    if share := study.stress.hidden_actions:
        raise UserError(
            f"--stress.hidden-actions {share}: others would be hidden among more episodes than in the run of --from,"
            " and what was hidden there would be seen; give 0, with which all actions are seen, or begin another run"
        )
    ours, theirs = _kept(study), _kept(before)
    for option, value in theirs.items():
        if ours[option] != value:
            raise UserError(f"{option} {ours[option]}: the run of --from has {value}, and goes on so; leave it out")
    known: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
        "--tasks": (study.tasks, before.tasks),
        "--seeds": (study.model_seeds, before.model_seeds),
        "--recorded.jurors": (tuple(range(study.recorded.jurors)), tuple(range(before.recorded.jurors))),
    }
    for option, (asked, there) in known.items():
        if missing := [one for one in asked if one not in there]:
            raise UserError(f"{option}: the run of --from has trained {' '.join(map(str, there))}, not {missing[0]}")


def _check_rounds(study: Study) -> None:
    """Episodes of policies can be recorded, and jurors of other seeds go on with them."""
    episodes = study.real.episodes
    if not episodes:
        return
    if not learns(study) or not benchmark_class(study.env).simulates:
        raise UserError(
            f"--real.episodes {episodes}: nothing here can record them; record episodes by worldaction serve POLICY"
            " --record NEW, and go on by --play OLD NEW --from RUN"
        )
    if episodes > START_STATES:
        raise UserError(f"--real.episodes {episodes}: give {START_STATES} at most, as many start states there are")
    if study.update.jury:
        raise UserError(f"--real.episodes {episodes}: jurors have recorded no episodes; leave out --update.jury")


def _kept(study: Study) -> dict[str, Any]:
    """Options that stay as they are: sizes of what is gone on with, what its sets mean, and what they hold out."""
    sizes = {f"--world-model.{name.replace('_', '-')}": value for name, value in sizes_of(study.world_model).items()}
    return {
        "--env": study.env,
        "--losses": study.losses,
        **sizes,
        "--table.image-size": study.table.image_size,
        "--policy": study.policy,
        "--success.hidden": study.success.hidden,
        "--success.held-out": study.success.held_out,
        "--recorded.success": study.recorded.success,
        "--recorded.scale": study.recorded.scale,
    }


def _check_sets(study: Study, before: Study) -> None:
    """What the run has learned from comes first, for its splits and its scale are kept."""
    old, all_of = ([Path(path).resolve() for path in one.plays] for one in (before, study))
    if all_of[: len(old)] != old or len(all_of) == len(old):
        raise UserError(
            f"--from {study.from_run} goes on with what it has learned from and new sets: give --play"
            f" {' '.join(map(str, old))} NEW"
        )


def check_trained(run: Run) -> None:
    """Refuse to go on from a run that is not finished or damaged, or whose sets or labels are others now.

    Args:
        run: not begun yet, whose `before` is looked at.

    Raises:
        UserError: names the run, and how to finish it or what has changed.
    """
    if run.before is None:
        return
    study, before = run.study, run.before
    # a complete run does not look any more, and with other outcomes other episodes would be held out
    before.fingerprints.refuse_changed([PLAY, *before.fingerprints.more_play, LABELS])
    wanted = {f"seed{s}/world_model": before.world_model(s) for s in study.model_seeds}
    stages = [(s, t, g) for s in study.seeds for t in study.tasks for g in ("success", "clone")]
    wanted |= {f"seed{s}/{t}/{g}": before.task(s, t, g) for s, t, g in stages}
    for seed, side in run.jurors().items():
        assert side.before is not None
        wanted[f"jury/seed{seed}/world_model"] = side.before.world_model(seed)
        wanted |= {f"jury/seed{seed}/{t}/success": side.before.task(seed, t, "success") for t in study.tasks}
    for place, artefact in wanted.items():
        if not artefact.complete or artefact.damage():
            raise UserError(
                f"--from {study.from_run}: {place} is not finished or damaged; go on with that run first:"
                f" {before.command}"
            )
