"""`worldaction benchmark`: how fast."""

from __future__ import annotations

HELP = "how fast this machine imagines and trains, and beside other libraries"


def forward(arguments: list[str]) -> None:
    """Run it."""
    from experiments.bench.benchmark import main

    main(arguments)
