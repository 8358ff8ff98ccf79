"""`worldaction record`: episodes of a saved policy in its own environment, as a data set to learn from."""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.study.waiting import choose_waiting
from worldaction.signals import how_to_go_on

HELP = "record episodes of a saved policy, to learn from them"
EPISODES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("policy", type=Path, help="its folder")
    parser.add_argument("--to", type=Path, required=True, metavar="STORE", help="the play store to create")
    parser.add_argument("--env", metavar="ENV", help="another environment than the one that its folder knows")
    parser.add_argument(
        "--episodes", type=int, default=EPISODES, metavar="N", help=f"how many (default: {EPISODES}; at most 1000)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="list of start states, 0 to 497, each of 1000 (default: 0)"
    )


def run(chosen: argparse.Namespace) -> None:
    """Record them; says how many succeed."""
    from experiments.real.starts import start_numbers
    from experiments.study.saved import SavedPolicy, benchmark_for

    saved = SavedPolicy.read(chosen.policy)
    benchmark = benchmark_for(saved, chosen.env)
    numbers = start_numbers(chosen.seed, chosen.episodes)
    choose_waiting()
    from agents.policy import Policy
    from experiments.real.collect import collect
    from worldaction.io.recorder import progress

    policy = Policy.from_pretrained(saved.folder)
    about = {"name": saved.folder.resolve().name, "weights": saved.weights}
    title = f"{saved.task} in {benchmark.name}"
    with how_to_go_on("the same command goes on"), progress(len(numbers), title, "episode") as bar:
        found = collect(policy, benchmark, chosen.to, numbers=numbers, about=about, progress=bar.update)
    print(f"{title}: {found.successes} of {found.episodes} episodes succeeded, {found.steps} frames in {chosen.to}")
