"""dreamerv3-torch (github.com/NM512/dreamerv3-torch), the PyTorch DreamerV3 that most projects began with.

Its classes run unchanged: `RSSM.img_step` imagines, `WorldModel._train` is a training step, reward and continue heads
included, which the others need not have. Sizes are the workload's, its networks are its own. Two of its habits are left
out of imagination, to its advantage: states are stacked once instead of after every step, and logits are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from experiments.bench.base import Sizes, Windows, Work, Workload, count, flops, without_gradients
from experiments.bench.peers.fetched import Settings, import_from, quietly


class DreamerV3Torch:
    """The library.

    Args:
        checkout: the repository's folder.
        device: where to compute.
    """

    def __init__(self, checkout: Path, device: torch.device) -> None:
        self.modules = import_from(checkout, ["networks", "models"])
        self.device = device

    def imagination(self, workload: Workload) -> Mapping[str, Work]:
        """`RSSM.img_step` over given actions."""
        core = self._core(workload.sizes)
        actions, start = workload.actions(self.device).unbind(1), core.initial(workload.batch)

        def dream() -> Tensor:
            state, states = start, []
            for action in actions:
                state = core.img_step(state, action)
                states.append(core.get_feat(state))
            return torch.stack(states, 1)

        run = without_gradients(dream)
        used = count(core._img_in_layers, core._cell, core._img_out_layers, core._imgs_stat_layer)
        about = "its RSSM: GRU with LayerNorm, dense one-hots, torch.distributions"
        return {"dreamerv3-torch": Work(run, workload.steps, about, parameters=used, flops=flops(run))}

    def training(self, windows: Windows) -> Mapping[str, Work]:
        """`WorldModel._train`."""
        images, actions, first = windows.data(self.device)
        spaces = {"image": SimpleNamespace(shape=tuple(images.shape[2:]))}
        with quietly():
            config = _config(windows, str(self.device))
            model = self.modules["models"].WorldModel(SimpleNamespace(spaces=spaces), None, 0, config)
        model.to(self.device)
        zeros = torch.zeros(first.shape)
        tensors = {"image": images, "action": actions, "is_first": first, "is_terminal": zeros, "reward": zeros}
        data = {key: value.cpu().numpy() for key, value in tensors.items()}

        def step() -> Any:
            with quietly():
                return model._train(data)

        about = "its WorldModel._train: 4x4 convolutions of stride 2 with norms, reward and continue heads, Adam"
        return {"dreamerv3-torch": Work(step, 1, about, parameters=count(model), flops=flops(step))}

    def _core(self, sizes: Sizes) -> Any:
        core = self.modules["networks"].RSSM(
            sizes.groups,
            sizes.deter,
            sizes.hidden,
            discrete=sizes.classes,
            unimix_ratio=sizes.unimix,
            num_actions=sizes.action,
            embed=1,
            device=str(self.device),
        )
        return core.to(self.device)


def _config(windows: Windows, device: str) -> Settings:
    """Its own settings for images at these sizes."""
    sizes = windows.sizes
    stack = {"mlp_keys": "$^", "cnn_keys": "image", "act": "SiLU", "norm": True, "cnn_depth": windows.depth}
    stack |= {"kernel_size": 4, "minres": 4, "mlp_layers": 5, "mlp_units": 1024}
    head = {"layers": 2, "loss_scale": 1.0}
    return Settings(
        precision=32,
        device=device,
        num_actions=sizes.action,
        dyn_stoch=sizes.groups,
        dyn_deter=sizes.deter,
        dyn_hidden=sizes.hidden,
        dyn_discrete=sizes.classes,
        dyn_rec_depth=1,
        dyn_mean_act="none",
        dyn_std_act="sigmoid2",
        dyn_min_std=0.1,
        unimix_ratio=sizes.unimix,
        initial="learned",
        units=sizes.hidden,
        act="SiLU",
        norm=True,
        encoder={**stack, "symlog_inputs": True},
        decoder={**stack, "cnn_sigmoid": False, "image_dist": "mse", "vector_dist": "symlog_mse", "outscale": 1.0},
        reward_head={**head, "dist": "symlog_disc", "outscale": 0.0},
        cont_head={**head, "outscale": 1.0},
        grad_heads=["decoder", "reward", "cont"],
        dyn_scale=0.5,
        rep_scale=0.1,
        kl_free=1.0,
        model_lr=1e-4,
        opt_eps=1e-8,
        grad_clip=1000,
        weight_decay=0.0,
        opt="adam",
        discount=0.997,
    )
