"""Everything that is known of a world model before a policy is trained in it. docs/metrics.md is the schema."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worldaction.metrics.action_probe import action_probe
from worldaction.metrics.causal import causal_sensitivity
from worldaction.metrics.open_loop import Rolls, image_fidelity
from worldaction.metrics.state_probes import state_probes
from worldaction.metrics.tcp_error import tcp_error
from worldaction.metrics.transit_interaction import transit_interaction


@torch.no_grad()
def fidelity(rolls: Rolls, *, steps: int = 300, seed: int) -> dict[str, Any]:
    """All measurements, ready for JSON. What a layout or a model does not have is "skipped", with the reason.

    Args:
        rolls: the world model on play.
        steps: for which networks that probe are fitted.
        seed: of what is fitted or drawn at random.
    """
    found: dict[str, Any] = {
        "probes": state_probes(rolls),
        "tcp_error": tcp_error(rolls),
        "transit_interaction": transit_interaction(rolls),
        "action_probe": action_probe(rolls, steps=steps, seed=seed),
        "causal_sensitivity": causal_sensitivity(rolls),
    }
    if rolls.model.draws_images() and rolls.model.config.cameras:
        images = image_fidelity(rolls.model, rolls.frames, rolls.validation, training=rolls.training)
        found |= {name: _lists(scores) for name, scores in images.items()}
    return found


def _lists(scores: Any) -> Any:
    """Tensors in nested mappings as lists."""
    return scores.tolist() if isinstance(scores, Tensor) else {name: _lists(part) for name, part in scores.items()}
