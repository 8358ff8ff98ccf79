"""`worldaction gpu-check`: everything that wants a GPU, in one go."""

from __future__ import annotations

HELP = "build, test and time everything on a GPU"


def forward(arguments: list[str]) -> None:
    """Run it."""
    from experiments.bench.gpu_check import main

    main(arguments)
