"""`worldaction baselines`: other methods beside ours."""

from __future__ import annotations

HELP = "other ways to learn a finished run's tasks"


def forward(arguments: list[str]) -> None:
    """Run it."""
    from experiments.baselines.__main__ import main

    main(arguments)
