"""`worldaction eval`: a saved policy in its environment, or the policies of a finished run in another simulator."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from experiments.study.waiting import choose_waiting
from worldaction.errors import UserError
from worldaction.signals import how_to_go_on
from worldaction.spec import CONTROL_HZ

if TYPE_CHECKING:
    from experiments.study.run import Run
    from experiments.study.settings import Study

HELP = "a saved policy in its environment, or a finished run's policies in another simulator"
CALVIN = "worldaction/Calvin-v0"
WORKERS = (
    "processes: so many tasks and seeds are evaluated at a time, each with as many simulators as the run's"
    " --evaluation.parallel says (default: the run's workers)"
)
EPISODES = 50
FILMED = 4
OF_RUNS: Final = ("in", "tasks", "seeds", "workers")
OF_POLICIES: Final = ("env", "first", "video", "out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("what", type=Path, help="folder of a policy, or of a run")
    parser.add_argument(
        "--episodes",
        type=int,
        metavar="N",
        help=f"start states; of a policy {EPISODES} by default, of a run those of each task and seed, the first of its"
        " evaluation (default: its --evaluation.judged-episodes)",
    )
    policy = parser.add_argument_group("of a policy")
    policy.add_argument("--env", metavar="ENV", help="another environment than the one that its folder knows")
    policy.add_argument("--first", type=int, metavar="K", help="number of the first start state (default: 450)")
    policy.add_argument(
        "--video", nargs="?", type=Path, const=Path(), metavar="FILE", help="film episodes (default: NAME.mp4)"
    )
    policy.add_argument("--out", type=Path, metavar="FILE", help="write outcomes as JSON")
    run = parser.add_argument_group("of a run, whose summary and report are written again")
    run.add_argument("--in", metavar="ENV", help=f"the simulator, as --env names it (default: {CALVIN})")
    run.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks of the run (default: all)")
    run.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="seeds of the run (default: all)")
    run.add_argument("--workers", type=int, metavar="N", help=WORKERS)


def run(chosen: argparse.Namespace) -> None:
    """Evaluate a policy, or what of a run is not evaluated there yet."""
    from experiments.study.saved import is_policy

    single = is_policy(chosen.what)
    other = OF_RUNS if single else OF_POLICIES
    if given := [option for option in other if vars(chosen)[option] is not None]:
        kind, needed = ("policy", "run") if single else ("run", "policy")
        raise UserError(f"--{given[0]}: {chosen.what} is a {kind}'s folder; leave it out, or give that of a {needed}")
    _of_policy(chosen) if single else _of_run(chosen)


# A policy -------------------------------------------------------------------------------------------------------------


def _of_policy(chosen: argparse.Namespace) -> None:
    episodes = EPISODES if chosen.episodes is None else chosen.episodes
    film = None if chosen.video is None else chosen.video if chosen.video.name else Path(f"{chosen.what.name}.mp4")
    found = play(chosen.what, env=chosen.env, first=chosen.first, episodes=episodes, film=film, films=FILMED)
    if chosen.out is not None:
        from worldaction.io.atomic import write_json

        write_json(chosen.out, found)
        print(chosen.out)


def play(
    folder: Path, *, env: str | None, first: int | None, episodes: int, film: Path | None, films: int
) -> dict[str, Any]:
    """Episodes of a saved policy; says how many succeed, and where the film of them is.

    Args:
        folder: of the policy.
        env: another environment than its own.
        first: number of the first start state.
        episodes: how many.
        film: the file of the film; None makes none.
        films: how many episodes are filmed, the first ones.

    Returns:
        outcomes, as evaluation.json has them of a policy.

    Raises:
        UserError: something does not exist or does not fit; before torch is imported, where that can be known.
    """
    from experiments.study.saved import SavedPolicy, benchmark_for, start_indices

    saved = SavedPolicy.read(folder)
    benchmark = benchmark_for(saved, env)
    indices = start_indices(benchmark, saved.task, first=first, episodes=episodes)
    choose_waiting()
    from agents.policy import Policy
    from experiments.report.statistics import success_rate
    from experiments.report.table import rate
    from experiments.report.video import Rollout, rollout_video
    from experiments.stages.rollout import WIDTH, evaluate
    from worldaction.io.recorder import progress

    policy, filmed = Policy.from_pretrained(folder), min(films, episodes) if film else 0
    with progress(episodes, f"{saved.task} in {benchmark.name}", "episode") as bar:
        parallel = max(WIDTH, filmed)
        found = evaluate(policy, benchmark, indices=indices, parallel=parallel, films=filmed, progress=bar.update)
    shown = rate(success_rate(found.success), " %")
    starts = f"start states {indices.start} to {indices.stop - 1}"
    print(f"{saved.task} in {benchmark.name}: {int(found.success.sum())} of {episodes}, {shown}; {starts}")
    if film:
        reels = zip(found.index, found.frames, found.success, strict=False)
        label = f"{folder.name}, start"
        rollouts = [Rollout(f"{label} {int(index)}", frames, bool(done)) for index, frames, done in reels]
        rollout_video(rollouts, film, fps=round(policy.interface.rate or CONTROL_HZ))
        print(film)
    return {"task": saved.task, "env": benchmark.name, **found.to_dict()}


# A run ----------------------------------------------------------------------------------------------------------------


def _of_run(chosen: argparse.Namespace) -> None:
    """Evaluate what is not evaluated there yet, and write the run's summary and report again."""
    env = vars(chosen)["in"] or CALVIN
    study = _check_asked(chosen, env)
    choose_waiting()
    from experiments.report.pages.run_page import console_table
    from experiments.stages.judge import judge
    from experiments.study.checks import among
    from experiments.study.conduct import chosen_kernels, finish
    from experiments.study.finished import check_finished
    from experiments.study.pool import run_jobs
    from experiments.study.run import Run
    from experiments.study.sessions import session
    from worldaction.io.recorder import setup_logging
    from worldaction.io.sealed_json import read_json

    found = Run.open(chosen.what)
    tasks, seeds = among(chosen.tasks, study.tasks, "task"), among(chosen.seeds, study.seeds, "seed")
    check_finished(found, tasks, seeds)
    episodes = _checked(found, chosen, env, tasks)
    jobs = [partial(judge, found, seed, task, env, episodes=episodes) for seed in seeds for task in tasks]
    _forget_links(found, env, tasks, seeds)
    again = how_to_go_on("the same command goes on with what is not done yet")
    with again, session(found.folder), chosen_kernels(found.study.kernels):
        setup_logging(found.log)
        run_jobs(jobs, chosen.workers or found.study.workers, stage="evaluation", log=found.log)
        finish(found)
    print(console_table(read_json(found.folder / "summary.json")))


def _check_asked(chosen: argparse.Namespace, env: str) -> Study:
    """Refuse what the run's settings rule out, before torch is imported."""
    from experiments.study.checks import among
    from experiments.study.settings import load_study

    study = load_study(chosen.what)
    if chosen.workers is not None and chosen.workers < 0:
        raise UserError(f"--workers {chosen.workers}: give 1 or more")
    if chosen.episodes is not None and chosen.episodes < 1:
        raise UserError(f"--episodes {chosen.episodes}: give 1 or more")
    among(chosen.tasks, study.tasks, "task")
    among(chosen.seeds, study.seeds, "seed")
    room = study.evaluation.episodes
    if chosen.episodes is not None and chosen.episodes > room:
        raise UserError(f"--episodes {chosen.episodes}: give 1 to {room}, as many as the run itself was evaluated in")
    if env == study.env:
        raise UserError(f"--in {env}: the run has been evaluated there already; see its report")
    settings = study.evaluation.judged_episodes
    if env in study.evaluate_in and chosen.episodes not in (None, settings):
        raise UserError(f"--episodes {chosen.episodes}: the run itself is to be judged in {settings}; leave it out")
    return study


def _checked(found: Run, chosen: argparse.Namespace, env: str, tasks: list[str]) -> int:
    """How many episodes; a simulator that cannot judge is refused."""
    from dataclasses import replace

    from experiments.study.checks import check_judges

    study = found.study
    episodes: int = study.evaluation.judged_episodes if chosen.episodes is None else chosen.episodes
    evaluation = replace(study.evaluation, judged_episodes=episodes)
    asked = replace(study, evaluate_in=(env,), evaluation=evaluation, tasks=tuple(tasks))
    check_judges(asked, found.resolved.layout, option="--in")
    return episodes


def _forget_links(found: Run, env: str, tasks: list[str], seeds: list[int]) -> None:
    """Let go of what was judged in another number of episodes; it stays in the cache, and comes back if asked for."""
    from experiments.study.checks import judged_in

    for seed in seeds:
        for task in tasks:
            link = found.folder / "artefacts" / f"seed{seed}" / task / judged_in(env)
            if link.is_symlink():
                link.unlink()
