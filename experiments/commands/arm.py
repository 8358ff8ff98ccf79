"""`worldaction arm`: the simulated arm in the place of a real one, recorded as a lab would, and judged by no study."""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.study.waiting import choose_waiting
from worldaction.errors import UserError
from worldaction.registration import ARM_ID

HELP = "a small simulated arm as if it were real: record a LeRobot set, evaluate a policy of it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    programs = parser.add_subparsers(dest="program", required=True, metavar="PROGRAM")
    record = programs.add_parser("record", help="a sloppy person's attempts at three tasks as a LeRobot set")
    record.add_argument("out", type=Path, metavar="OUT", help="folder to create")
    record.add_argument("--episodes", type=int, default=60, metavar="N", help="in all (default: 60)")
    record.add_argument("--failures", type=int, default=15, metavar="N", help="of them (default: 15)")
    record.add_argument("--no-success", action="store_true", help="leave out the column that tells failures")
    evaluate = programs.add_parser("evaluate", help="how often a policy succeeds on the arm")
    evaluate.add_argument("policy", type=Path, metavar="POLICY", help="its folder")
    evaluate.add_argument("--task", help="a name or a sentence (default: the policy's own)")
    evaluate.add_argument("--episodes", type=int, default=100, metavar="N", help="start states (default: 100)")
    evaluate.add_argument("--out", type=Path, metavar="FILE", help="write outcomes as JSON")
    for program in (record, evaluate):
        program.add_argument("--seed", type=int, default=0, help="of the starts (default: 0)")
        program.add_argument("--renderer", default="auto", help="auto, egl, osmesa or rays (default: auto)")


def run(chosen: argparse.Namespace) -> None:
    """Record, or evaluate."""
    if chosen.seed < 0 or chosen.episodes < 1:
        raise UserError(f"--seed {chosen.seed} must be at least 0, --episodes {chosen.episodes} at least 1")
    _record(chosen) if chosen.program == "record" else _evaluate(chosen)


def _record(chosen: argparse.Namespace) -> None:
    from envs.arm.record import record
    from worldaction.io.recorder import progress

    with progress(chosen.episodes, "record", "episode") as bar:
        record(
            chosen.out,
            episodes=chosen.episodes,
            failures=chosen.failures,
            seed=chosen.seed,
            tells_success=not chosen.no_success,
            renderer=chosen.renderer,
            progress=bar.update,
        )
    print(f"{chosen.out} is written; look at it with: worldaction data inspect {chosen.out} --sheet sheet.png")


def _evaluate(chosen: argparse.Namespace) -> None:
    choose_waiting()
    import gymnasium

    from agents.policy import Policy
    from envs.arm.evaluation import evaluate
    from envs.arm.tasks import get_task
    from experiments.report.statistics import wilson
    from worldaction.io.atomic import write_json
    from worldaction.io.recorder import progress

    policy = Policy.from_pretrained(chosen.policy)
    task = get_task(chosen.task or policy.task)
    env = gymnasium.make(ARM_ID, task=task.name, renderer=chosen.renderer, disable_env_checker=True)
    outcomes = []
    with progress(chosen.episodes, "evaluate", "episode") as bar:
        for outcome in evaluate(policy, env, episodes=chosen.episodes, seed=chosen.seed):
            outcomes.append(outcome)
            bar.update(1)
    successes = sum(outcome.success for outcome in outcomes)
    interval = wilson(successes, len(outcomes))
    if chosen.out is not None:
        values = {"task": task.name, "successes": successes, "episodes": len(outcomes), "interval": interval}
        write_json(chosen.out, values | {"outcomes": [outcome._asdict() for outcome in outcomes]})
    low, high = (round(100 * end) for end in interval)
    print(f"{task.sentence}: {successes} of {len(outcomes)} episodes, 95 % interval {low} to {high} %")
