"""A worldaction policy for the `lerobot` package, which imports this when it looks for plug-ins.

`worldaction export` copies this folder into what it writes; worldaction itself never imports it.
"""

from __future__ import annotations

from lerobot_policy_worldaction.configuration_worldaction import WorldActionConfig
from lerobot_policy_worldaction.env_worldaction import WorldActionEnv

__all__ = ["WorldActionConfig", "WorldActionEnv"]
