"""Environments: the embedded play table, the real CALVIN simulator, the task oracle, and the frozen world model as one.

Importing this package registers `worldaction/PlayTable-v0`, `worldaction/Calvin-v0`, `worldaction/MetaWorld-v0` and
`worldaction/Dream-v0` with Gymnasium, and loads neither a simulator nor torch.
"""

from __future__ import annotations

import gymnasium

from worldaction.programs import only_programs

# the simulator's side runs as a file, in another interpreter
only_programs(
    __name__,
    (),
    {"envs.playtable.check": "worldaction table experts", "envs.calvin.record": "worldaction table record"},
)

PLAY_TABLE_ID = "worldaction/PlayTable-v0"
CALVIN_ID = "worldaction/Calvin-v0"
DREAM_ID = "worldaction/Dream-v0"
METAWORLD_ID = "worldaction/MetaWorld-v0"

if PLAY_TABLE_ID not in gymnasium.registry:
    # the time limit lives in the environment itself, so that it also holds without gymnasium.make
    gymnasium.register(id=PLAY_TABLE_ID, entry_point="envs.playtable.env:PlayTableEnv")

if CALVIN_ID not in gymnasium.registry:
    gymnasium.register(id=CALVIN_ID, entry_point="envs.calvin.env:CalvinEnv")

if DREAM_ID not in gymnasium.registry:
    gymnasium.register(id=DREAM_ID, entry_point="envs.dream:DreamGymEnv")

if METAWORLD_ID not in gymnasium.registry:
    gymnasium.register(id=METAWORLD_ID, entry_point="envs.metaworld.env:MetaWorldEnv", max_episode_steps=500)
