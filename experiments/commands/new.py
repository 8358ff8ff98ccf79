"""`worldaction new`: a plug-in from nothing, one file that works, and its tests."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Final

from worldaction.scaffold import title_of

HELP = "write a loss, a policy head, a policy update or an environment of your own, with its tests"
_KINDS: Final = {
    "loss": ("worldaction.losses.tools.scaffold:new_loss", "--losses reconstruction kl {target}=1"),
    "policy": ("agents.policies.tools.scaffold:new_policy", "--policy {target}"),
    "update": ("agents.updates.tools.scaffold:new_update", "--update {target}"),
    "env": ("envs.general.tools.scaffold:new_env", "--env {target}"),
}
"""What writes each, and how a study is told of it."""
_ARTICLES: Final = {"update": "an", "env": "an"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in _KINDS:
        kinds.add_parser(
            kind, help=f"write {_ARTICLES.get(kind, 'a')} {kind} of your own, with its tests"
        ).add_argument("name", help="its name")


def run(chosen: argparse.Namespace) -> None:
    """Write it, and say what comes next."""
    writer, option = _KINDS[chosen.kind]
    module, _, function = writer.partition(":")
    code, test = getattr(import_module(module), function)(chosen.name, Path())
    target = f"{chosen.name}:{title_of(chosen.name)}"
    print(f"{code} and {test} are written. Next:\n")
    print(f"  worldaction check {chosen.kind} {target}\n  python -m pytest {test}")
    print(f"  python -m experiments.calvin debug {option.format(target=target)}")
