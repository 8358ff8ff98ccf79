"""The study: play data --> world model --> latents --> BC --> imagination --> PPO --> evaluation --> curves.

python -m experiments.calvin [debug|quick|small|base|paper] [--tasks ...] [--seeds ...] [--losses ...]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from experiments.study.settings import PRESETS, Study
from experiments.study.waiting import choose_waiting


def main(
    arguments: Sequence[str],
    presets: Mapping[str, Study] = PRESETS,
    *,
    program: str = "python -m experiments.calvin",
) -> None:
    """Run the study that the arguments describe.

    Args:
        arguments: without the program's name.
        presets: what it may begin from.
        program: how it was called, for its help.
    """
    from experiments.study.options import parse_study

    study, resume, only_print = parse_study(arguments, presets, program=program)
    if only_print:
        import json

        from worldaction.config import to_dict

        print(json.dumps(to_dict(study), indent=2))
        return
    if resume is None:
        from experiments.study.checks import check_paths

        check_paths(study)
    choose_waiting()
    from experiments.study.conduct import conduct

    conduct(study, resume)


if __name__ == "__main__":
    from experiments.guard import guarded

    sys.exit(guarded(lambda: main(sys.argv[1:])))
