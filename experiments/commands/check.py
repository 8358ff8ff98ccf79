"""`worldaction check`: does a plug-in keep to its contract?"""

from __future__ import annotations

import argparse

from worldaction.errors import UserError

HELP = "does a loss keep to the contract?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("loss", help=HELP).add_argument("loss", help="as for --losses")


def run(chosen: argparse.Namespace) -> None:
    """Examine it.

    Raises:
        UserError: it breaks the contract.
    """
    from worldaction.losses.registry import find, parse
    from worldaction.losses.tools.contract import examine, variant
    from worldaction.losses.tools.cost import costs

    text, wrong = chosen.loss, 0
    spec = parse(text)
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
