"""`worldaction check`: does a plug-in keep to its contract?"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from worldaction.errors import UserError
from worldaction.extension import Family

HELP = "does a loss, a policy head, a policy update or an environment keep to its contract?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, option in (("loss", "--losses"), ("policy", "--policy"), ("update", "--update"), ("env", "--env")):
        kinds.add_parser(kind, help=f"does a {kind} keep to its contract?").add_argument(
            "target", help=f"as for {option}"
        )


def run(chosen: argparse.Namespace) -> None:
    """Examine it.

    Raises:
        UserError: it breaks the contract.
    """
    {"loss": _loss, "policy": _policy, "update": _update, "env": _env}[chosen.kind](chosen.target)
    print(f"\n{chosen.target} keeps to the contract")


def _loss(text: str) -> None:
    from worldaction.losses.registry import find, parse
    from worldaction.losses.tools.contract import examine, variant
    from worldaction.losses.tools.cost import costs

    spec = parse(text)
    cls = find(spec.target)
    _verdict("loss", text, examine(variant(cls, spec.options) if spec.options else cls))
    share = costs({text: cls}, repeats=1)[text]
    print(f"cost   {100 * share:.1f} % of a training step of a small model with reconstruction and KL")


def _policy(text: str) -> None:
    from agents.policies.registry import POLICIES
    from agents.policies.tools.contract import examine

    _verdict("policy", text, examine(POLICIES.find(_bare(POLICIES, text))))


def _update(text: str) -> None:
    from agents.updates.registry import UPDATES
    from agents.updates.tools.contract import examine

    _verdict("update", text, examine(UPDATES.find(_bare(UPDATES, text))))


def _env(text: str) -> None:
    from envs.general.tools.contract import examine

    _verdict("environment", text, examine(text))


def _bare(family: Family, text: str) -> str:
    """A target without options, for the examination sets sizes of its own."""
    spec = family.parse(text)
    if spec.options:
        raise UserError(f"{family.kind} {text!r} is examined without options; give {spec.target}")
    return spec.target


def _verdict(kind: str, text: str, examined: Iterable[tuple[str, list[str]]]) -> None:
    """Say of each demand whether it holds."""
    wrong = 0
    for demand, found in examined:
        print(f"{'ok   ' if not found else 'WRONG'}  {demand}")
        for sentence in found:
            print(f"       {sentence}")
        wrong += len(found)
    if wrong:
        raise UserError(f"{kind} {text} breaks the contract in {wrong} places; see above")
