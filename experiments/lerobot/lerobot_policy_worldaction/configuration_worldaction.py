"""The settings of an exported policy, as `lerobot` keeps them in config.json."""

# no postponed annotations: draccus reads the types of the fields

from dataclasses import dataclass, field

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import NormalizationMode
from lerobot.optim.optimizers import AdamWConfig


def _as_it_is() -> dict[str, NormalizationMode]:
    return dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)


@PreTrainedConfig.register_subclass("worldaction")
@dataclass
class WorldActionConfig(PreTrainedConfig):
    """What `lerobot` asks of a policy's settings; the policy normalises what it sees and scales what it does itself."""

    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=_as_it_is)
    worldaction: str = ""
    """The config.json of the exported policy, as text."""

    @property
    def observation_delta_indices(self) -> None:
        """One frame at a time."""

    @property
    def action_delta_indices(self) -> None:
        """Not trained by lerobot-train."""

    @property
    def reward_delta_indices(self) -> None:
        """Not trained by lerobot-train."""

    def get_optimizer_preset(self) -> AdamWConfig:
        """Asked for, and never used."""
        return AdamWConfig(lr=1e-4)

    def get_scheduler_preset(self) -> None:
        """None."""

    def validate_features(self) -> None:
        """The policy says itself what an observation lacks."""
