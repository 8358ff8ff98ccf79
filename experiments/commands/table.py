"""`worldaction table`: what the play table is measured with, beside CALVIN."""

from __future__ import annotations

from importlib import import_module

from worldaction.errors import unknown

HELP = "measure the play table: fidelity, looks, experts, sensitivity, record, upstream"
PROGRAMS = {
    "fidelity": "envs.playtable.tools.fidelity",
    "looks": "envs.playtable.tools.looks",
    "experts": "envs.playtable.tools.check",
    "sensitivity": "envs.playtable.tools.sensitivity",
    "record": "envs.calvin.record",
    "upstream": "envs.calvin.evaluation",
}


def forward(arguments: list[str]) -> None:
    """Run one of the programs."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("worldaction table PROGRAM [OPTIONS]\n")
        for name, module in PROGRAMS.items():
            print(f"  {name:<10} {(import_module(module).__doc__ or '').splitlines()[0]}")
        return
    if arguments[0] not in PROGRAMS:
        raise unknown("program of worldaction table", arguments[0], PROGRAMS)
    import_module(PROGRAMS[arguments[0]]).main(arguments[1:])
