"""`worldaction train`: a study in any environment."""

from __future__ import annotations

HELP = "a study in any environment: [PRESET] --env ID [OPTIONS]"


def forward(arguments: list[str]) -> None:
    """Run the study that the arguments describe."""
    from experiments.calvin import main

    main(arguments, program="worldaction train")
