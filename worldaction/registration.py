"""This distribution's environments as Gymnasium knows them: their names and where they are, and nothing is imported.

Gymnasium 1.0 took its entry points for plug-ins away, so the import of `worldaction` is what makes them known:

    import gymnasium, worldaction
    env = gymnasium.make("worldaction/PlayTable-v0")

or, without an import, ``gymnasium.make("worldaction:worldaction/PlayTable-v0")``.
"""

from __future__ import annotations

from typing import Final

import gymnasium

PLAY_TABLE_ID: Final = "worldaction/PlayTable-v0"
CALVIN_ID: Final = "worldaction/Calvin-v0"
DREAM_ID: Final = "worldaction/Dream-v0"
METAWORLD_ID: Final = "worldaction/MetaWorld-v0"
ARM_ID: Final = "worldaction/Arm-v0"

ENVIRONMENTS: Final = {
    PLAY_TABLE_ID: "envs.playtable.env:PlayTableEnv",
    CALVIN_ID: "envs.calvin.env:CalvinEnv",
    DREAM_ID: "envs.dream:DreamGymEnv",
    METAWORLD_ID: "envs.metaworld.env:MetaWorldEnv",
    ARM_ID: "envs.arm.env:ArmEnv",
}
TIME_LIMITS: Final = {METAWORLD_ID: 500, ARM_ID: 180}
"""Control steps; the limits of the others live in them, so that they also hold without `gymnasium.make`."""


def register() -> None:
    """Tell Gymnasium of all that it does not know yet."""
    for name, entry_point in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=entry_point, max_episode_steps=TIME_LIMITS.get(name))
