"""The `worldaction` command: each of its verbs is a file of experiments/commands. Nothing heavy is imported for it."""

from __future__ import annotations

import argparse
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import experiments.commands
from experiments.guard import check_arguments, guarded

PROGRAM = "worldaction"


def main() -> None:
    """The `worldaction` command."""
    sys.exit(guarded(lambda: command(sys.argv[1:])))


def verbs() -> dict[str, Any]:
    """The modules of all verbs, by what the user types."""
    package = experiments.commands
    modules = [import_module(f"{package.__name__}.{info.name}") for info in pkgutil.iter_modules(package.__path__)]
    return {module.__name__.rpartition(".")[2].replace("_", "-"): module for module in modules}


def command(arguments: Sequence[str]) -> None:
    """Do what the arguments, without the program's name, ask for."""
    check_arguments(arguments)
    known = verbs()
    if arguments and (module := known.get(arguments[0])) and hasattr(module, "forward"):
        # a program with options of its own, which answers for its --help as well
        module.forward(list(arguments[1:]))
        return
    parser = argparse.ArgumentParser(prog=PROGRAM, description="World-action models for robot learning.")
    commands = parser.add_subparsers(dest="verb_", required=True, metavar="VERB")
    for verb, module in known.items():
        own = commands.add_parser(verb, help=module.HELP, add_help=not hasattr(module, "forward"))
        if hasattr(module, "add_arguments"):
            module.add_arguments(own)
    chosen = parser.parse_args(arguments)
    known[chosen.verb_].run(chosen)


if __name__ == "__main__":
    main()
