"""The same study in Meta-World, the second benchmark: three tasks, scripted experts, pixels and the hand's position.

python -m experiments.metaworld [debug|quick|small] [--tasks ...] [--seeds ...] [--losses ...]

Needs the extra `metaworld`, in an environment of its own (it pins an old MuJoCo); see docs/environments.md.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from experiments.study.settings import PRESETS, Study
from worldaction.config import GymConfig, StressConfig

FRAMES = {"debug": 2_000, "quick": 40_000, "small": 60_000}
"""Frames of play, by preset."""
STEPS = 120
"""Time limit of an episode (control steps of 1/80 s): scripted experts need 60 to 100."""


def _in_metaworld(study: Study) -> Study:
    from envs import METAWORLD_ID
    from envs.metaworld.env import TASKS

    return replace(
        study,
        env=METAWORLD_ID,
        tasks=TASKS,
        table=replace(study.table, max_steps=STEPS, supersample=1),
        gym=GymConfig(camera="render"),
        stress=StressConfig(),
        # the tables' near misses that try again are not made here, so play keeps its share
        data=replace(study.data, frames=FRAMES[study.preset], demo_noise=0.2, demo_limit=0),
        world_model=replace(study.world_model, cameras=("render",)),
        update=replace(study.update, horizon=0),
    )


def presets() -> dict[str, Study]:
    """The presets of the play table, moved to Meta-World."""
    return {name: _in_metaworld(PRESETS[name]) for name in ("debug", "quick", "small")}


if __name__ == "__main__":
    from experiments.calvin import main
    from experiments.guard import guarded

    sys.exit(guarded(lambda: main(sys.argv[1:], presets(), program="python -m experiments.metaworld")))
