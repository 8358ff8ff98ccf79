"""Environments: the play table, the real CALVIN simulator, a small arm, the task oracle, and the frozen world model.

worldaction/registration.py tells Gymnasium of them: `worldaction/PlayTable-v0`, `worldaction/Calvin-v0`,
`worldaction/MetaWorld-v0`, `worldaction/Arm-v0` and `worldaction/Dream-v0`. Importing this package loads neither a
simulator nor torch.
"""

from __future__ import annotations

from worldaction.programs import only_programs
from worldaction.registration import ARM_ID, CALVIN_ID, DREAM_ID, METAWORLD_ID, PLAY_TABLE_ID

__all__ = ["ARM_ID", "CALVIN_ID", "DREAM_ID", "METAWORLD_ID", "PLAY_TABLE_ID"]

# the simulator's side runs as a file, in another interpreter
only_programs(
    __name__,
    __path__[0],
    {
        "envs.playtable.check": "worldaction table experts",
        "envs.calvin.record": "worldaction table record",
        "envs.calvin.evaluation": "worldaction table upstream",
    },
)
