"""`worldaction build-kernels`: kernels ahead of time."""

from __future__ import annotations

HELP = "compile the CUDA kernels ahead of time"


def forward(arguments: list[str]) -> None:
    """Run it."""
    from worldaction.kernels.build import main

    main(arguments)
