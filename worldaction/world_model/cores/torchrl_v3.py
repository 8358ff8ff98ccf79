"""DreamerV3's recurrent core as TorchRL has it: `RSSMPriorV3` and `RSSMPosteriorV3` (Hafner et al. 2023, 2301.04104).

The networks are TorchRL's, called as they are; what is sampled from their logits is ours, by the same inverse CDF and
uniform numbers as every other core, so that imagination does not depend on how dreams are batched. Plain PyTorch: the
implementations in `worldaction.kernels` are for dreamer_v2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torchrl.modules import RSSMPosteriorV3, RSSMPriorV3

from worldaction.config import Count
from worldaction.errors import UserError
from worldaction.world_model.cores.base import RecurrentCore


@dataclass(frozen=True)
class TorchRLV3Options:
    """Options of `TorchRLV3`."""

    recurrent: Literal["block_gru", "gru"] = "block_gru"
    """block_gru: DreamerV3's, with RMSNorm; gru: TorchRL's older one, without norms."""
    blocks: Count = 8
    """Blocks of the block GRU, which divide the size D of the belief."""


class TorchRLV3(RecurrentCore):
    """TorchRL's prior and posterior networks behind the interface of every core."""

    name = "torchrl_v3"
    Options = TorchRLV3Options

    def __init__(self, options: TorchRLV3Options | None = None, **sizes: Any) -> None:
        """
        Args:
            options: which recurrent cell.
            sizes: see `RecurrentCore`.

        Raises:
            UserError: D does not split into the blocks.
        """
        super().__init__(options, **sizes)
        grouped = self.options.recurrent == "block_gru"
        if grouped and self.deter % self.options.blocks:
            raise UserError(
                f"core torchrl_v3: {self.options.blocks} blocks do not divide --world-model.deter {self.deter}; "
                "change one of them, or write torchrl_v3,recurrent=gru"
            )
        shared: dict[str, Any] = {
            "hidden_dim": self.hidden,
            "rnn_hidden_dim": self.deter,
            "num_categoricals": self.groups,
            "num_classes": self.classes,
        }
        self.prior_net = RSSMPriorV3(
            action_shape=(self.action,),
            action_dim=self.action,
            recurrent_model=self.options.recurrent,
            num_blocks=self.options.blocks,
            **shared,
        )
        self.posterior_net = RSSMPosteriorV3(obs_embed_dim=self.embed, use_rms_norm=grouped, **shared)

    def predict(self, belief: Tensor, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """See `RecurrentCore.predict`."""
        logits, _, belief = self.prior_net(state, belief, action, _uniform=_unused(belief, self.groups))
        return belief, logits

    def correct(self, belief: Tensor, embed: Tensor) -> Tensor:
        """See `RecurrentCore.correct`."""
        logits: Tensor = self.posterior_net(belief, embed, _uniform=_unused(belief, self.groups))[0]
        return logits


def _unused(like: Tensor, groups: int) -> Tensor:
    """Numbers [B, S] for a sample that nobody looks at, so that TorchRL draws none from torch's global generator."""
    return torch.full((len(like), groups), 0.5, device=like.device)
