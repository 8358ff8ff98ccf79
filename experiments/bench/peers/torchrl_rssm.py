"""TorchRL's DreamerV3: the RSSM that comes with the framework this library builds on.

`RSSMPriorV3` imagines in a plain loop over tensors, which is faster than its `DreamerEnv`, with both of its recurrent
cells, and once compiled. A training step is `DreamerV3ModelLoss` over its encoder, `RSSMRolloutV3`, decoder and reward
head, as in its documentation; 5x5 convolutions of stride 2. Its own compilation of the rollout is a loss on CPUs and is
left off.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl.modules import (
    DreamerV3ImageDecoder,
    DreamerV3ImageEncoder,
    DreamerV3MLP,
    RSSMPosteriorV3,
    RSSMPriorV3,
    RSSMRolloutV3,
    SymExpTwoHot,
)
from torchrl.objectives import DreamerV3ModelLoss

from experiments.bench.base import Sizes, Windows, Work, Workload, count, flops, without_gradients

CELLS = {"gru": "GRU without norms", "block_gru": "GRU of 8 blocks with RMSNorm"}
MULTIPLES = (2, 3, 4, 4)


class TorchRL:
    """The library.

    Args:
        device: where to compute.
        compiled: whether to enter its faster cell compiled, too, which takes seconds for every batch size.
    """

    def __init__(self, device: torch.device, *, compiled: bool = True) -> None:
        self.device, self.compiled = device, compiled

    def imagination(self, workload: Workload) -> Mapping[str, Work]:
        """`RSSMPriorV3` over given actions."""
        works = {}
        for cell, words in CELLS.items():
            prior = _prior(workload.sizes, cell).to(self.device)
            run = self._dream(prior, prior, workload)
            about = f"its RSSMPriorV3: {words}, dense one-hots, tensors in a loop"
            work = Work(run, workload.steps, about, parameters=count(prior), flops=flops(run))
            works[f"TorchRL {cell}"] = work
            if cell == "gru" and self.compiled:
                run = self._dream(torch.compile(prior, dynamic=False), prior, workload)
                about += ", torch.compile"
                works["TorchRL gru, compiled"] = Work(
                    run, workload.steps, about, parameters=work.parameters, flops=work.flops
                )
        return works

    def _dream(self, step: Callable[..., Any], prior: RSSMPriorV3, workload: Workload) -> Callable[[], object]:
        actions = workload.actions(self.device).unbind(1)
        flat = workload.sizes.groups * workload.sizes.classes

        def dream() -> tuple[Tensor, Tensor]:
            state = torch.zeros(workload.batch, flat, device=self.device)
            belief = torch.zeros(workload.batch, prior.rnn_hidden_dim, device=self.device)
            states, beliefs = [], []
            for action in actions:
                _, state, belief = step(state, belief, action)
                states.append(state)
                beliefs.append(belief)
            return torch.stack(states, 1), torch.stack(beliefs, 1)

        return without_gradients(dream)

    def training(self, windows: Windows) -> Mapping[str, Work]:
        """`DreamerV3ModelLoss`, backward, clipping, Adam."""
        model = _WorldModel(windows).to(self.device)
        loss = DreamerV3ModelLoss(model, kl_mode="separate", reco_symlog=False, unimix=windows.sizes.unimix)
        loss.to(self.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        data = self._data(windows)

        def step() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                terms, _ = loss(data.clone(recurse=False))
            torch.stack([value.mean() for value in terms.values()]).sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 100.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        about = "its DreamerV3ModelLoss, block_gru: 5x5 convolutions of stride 2 with norms, reward head, Adam"
        return {"TorchRL": Work(step, 1, about, parameters=count(model), flops=flops(step))}

    def _data(self, windows: Windows) -> TensorDict:
        images, actions, first = windows.data(self.device)
        sizes, shape = windows.sizes, first.shape
        reward = torch.zeros(*shape, 1, device=self.device)
        return TensorDict(
            {
                "state": torch.zeros(*shape, sizes.groups * sizes.classes, device=self.device),
                "belief": torch.zeros(*shape, sizes.deter, device=self.device),
                "action": actions,
                "is_init": first.unsqueeze(-1),
                "next": {"pixels": images.movedim(-1, 2).contiguous(), "reward": reward},
            },
            shape,
        )


class _WorldModel(nn.Module):
    """Its modules in the order of its documentation."""

    def __init__(self, windows: Windows) -> None:
        super().__init__()
        sizes, shape = windows.sizes, (3, windows.image, windows.image)
        encoder = DreamerV3ImageEncoder(depth=windows.depth, mults=MULTIPLES)
        features = sizes.groups * sizes.classes + sizes.deter
        posterior = RSSMPosteriorV3(
            sizes.hidden,
            sizes.groups,
            sizes.classes,
            sizes.deter,
            encoder.output_features(shape),
            use_rms_norm=True,
            unimix=sizes.unimix,
        )
        latent = [("next", "state"), ("next", "belief")]
        parts = [
            TensorDictModule(encoder, [("next", "pixels")], [("next", "encoded_latents")]),
            RSSMRolloutV3(
                TensorDictModule(
                    _prior(sizes, "block_gru"), ["state", "belief", "action"], [("next", "prior_logits"), *latent]
                ),
                TensorDictModule(
                    posterior,
                    [("next", "belief"), ("next", "encoded_latents")],
                    [("next", "posterior_logits"), ("next", "state")],
                ),
            ),
            TensorDictModule(
                DreamerV3ImageDecoder(features, shape, windows.depth, MULTIPLES), latent, [("next", "reco_pixels")]
            ),
            TensorDictModule(
                DreamerV3MLP(features, 255, 1, sizes.hidden, outscale=0.0), latent, [("next", "reward_logits")]
            ),
            TensorDictModule(SymExpTwoHot(255), [("next", "reward_logits")], [("next", "reward")]),
        ]
        self.parts = TensorDictSequential(*parts)

    def forward(self, data: TensorDict) -> Any:
        return self.parts(data)


def _prior(sizes: Sizes, cell: str) -> RSSMPriorV3:
    return RSSMPriorV3(
        hidden_dim=sizes.hidden,
        rnn_hidden_dim=sizes.deter,
        num_categoricals=sizes.groups,
        num_classes=sizes.classes,
        action_dim=sizes.action,
        action_shape=torch.Size([sizes.action]),
        recurrent_model=cell,
        unimix=sizes.unimix,
    )
