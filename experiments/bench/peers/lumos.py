"""LUMOS (github.com/nematoli/lumos), whose world model is DreamerV2's: the one that is nearest to ours.

Its classes run unchanged: `RSSMCell` imagines as `DreamerV2.dream` does, and a training step is what
`DreamerV2.training_step` does without Lightning, logging and its GradScaler for float16 on a GPU. Sizes are the
workload's, its cell is its own: `torch.nn.GRUCell`, one-hots into dense layers, `torch.distributions`. Of its two
cameras the second is taken away, together with the layer that fuses both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from experiments.bench.base import Windows, Work, Workload, count, flops, without_gradients
from experiments.bench.peers.fetched import import_from

MODULES = ("lumos.world_models.dreamer_v2", "lumos.world_models.rssm.core", "lumos.world_models.rssm.cell")
PARTS = ("rssm.gru", "encoders.cnn_encoder", "decoders.cnn_decoder")


class Lumos:
    """The library.

    Args:
        checkout: the repository's folder.
        device: where to compute.
    """

    def __init__(self, checkout: Path, device: torch.device) -> None:
        names = [*MODULES, *(f"lumos.world_models.{part}" for part in PARTS)]
        self.modules = import_from(checkout, names, instead=_frameworks())
        self.device = device

    def imagination(self, workload: Workload) -> Mapping[str, Work]:
        """`RSSMCell.forward` without an observation, step by step."""
        cell = self._of("rssm.cell").RSSMCell(embed_dim=1, gru=self._gru(workload.sizes), **_cell(workload.sizes))
        cell.to(self.device)
        actions = workload.actions(self.device).unbind(1)

        def dream() -> Tensor:
            state, states = cell.init_state(workload.batch), []
            for action in actions:
                _, state = cell(action, state)
                states.append(torch.cat(state, -1))
            return torch.stack(states, 1)

        run = without_gradients(dream)
        used = [cell.gru, cell.z_mlp, cell.a_mlp, cell.in_norm, cell.prior_mlp_h, cell.prior_norm, cell.prior_mlp]
        about = "its RSSMCell: GRUCell, dense one-hots, torch.distributions"
        return {"LUMOS": Work(run, workload.steps, about, parameters=count(*used), flops=flops(run))}

    def training(self, windows: Windows) -> Mapping[str, Work]:
        """Encoder, filter, decoder, KL, AdamW."""
        model = self._model(windows)
        optimizer = model.configure_optimizers()["optimizer"]
        images, actions, first = windows.data(self.device)
        # [T, B, ...]; images in [-0.5, 0.5] and a second camera without channels
        static = (images.float() / 255 - 0.5).movedim(-1, 2).transpose(0, 1).contiguous()
        none = static[:, :, :0]
        previous, reset = actions.transpose(0, 1), first.transpose(0, 1).unsqueeze(-1)
        batch = {"vis": {"rgb_obs": {"rgb_static": static, "rgb_gripper": none}}}

        def step() -> None:
            optimizer.zero_grad()
            state = model.rssm_core.init_state(windows.batch)
            outputs = model(static, none, None, previous, None, reset, state)
            model.loss(batch, outputs)["loss_total"].backward()
            nn.utils.clip_grad_norm_(model.parameters(), model.grad_clip)
            optimizer.step()

        about = "its DreamerV2 with one camera: 4x4 convolutions of stride 2, AdamW"
        return {"LUMOS": Work(step, 1, about, parameters=count(model), flops=flops(step))}

    def _model(self, windows: Windows) -> Any:
        sizes, depth = windows.sizes, windows.depth
        parts = {"cnn_depth": depth, "stride": 2, "activation": "elu"}
        encoder = _options(self._encoder, kernels=[4, 4, 4, 4], **parts)
        decoder = _options(self._decoder, in_dim=None, kernels=[5, 5, 6, 6], layer_norm=True, mlp_layers=0, **parts)
        cell = _options(self._of("rssm.cell").RSSMCell, gru=self._gru(sizes), **_cell(sizes))
        model = self._of("dreamer_v2").DreamerV2(
            encoder=encoder,
            decoder=decoder,
            rssm=_options(self._of("rssm.core").RSSMCore, cell=cell),
            amp=SimpleNamespace(autocast=_options(contextlib.nullcontext), scaler=_options(contextlib.nullcontext)),
            optimizer=_options(torch.optim.AdamW, lr=3e-4, eps=1e-5, weight_decay=0.05),
            loss=SimpleNamespace(kl_balance=0.8, kl_weight=0.3, image_weight=1.0, grad_clip=100),
            batch_size=windows.batch,
            with_proprio=False,
            gripper_control=False,
            name="dreamer_v2",
        )
        return model.to(self.device)

    def _encoder(self, **options: Any) -> nn.Module:
        return OneCameraEncoder(self._of("encoders.cnn_encoder").CnnEncoder(**options).encoder_static)

    def _decoder(self, **options: Any) -> nn.Module:
        return OneCameraDecoder(self._of("decoders.cnn_decoder").CnnDecoder(**options).decoder_static)

    def _gru(self, sizes: Any) -> SimpleNamespace:
        stack = self._of("rssm.gru").GRUCellStack
        return _options(stack, input_size=sizes.hidden, hidden_size=sizes.deter, n_layers=1)

    def _of(self, part: str) -> Any:
        return self.modules[f"lumos.world_models.{part}"]


class OneCameraEncoder(nn.Module):
    """Its static camera's stream alone; frames [T, B, 3, H, W] to [T, B, E]."""

    def __init__(self, stream: nn.Module) -> None:
        super().__init__()
        self.stream = stream

    def forward(self, static: Tensor, _: Tensor) -> Tensor:
        embed: Tensor = self.stream(static.flatten(0, 1)).unflatten(0, static.shape[:2])
        return embed


class OneCameraDecoder(nn.Module):
    """Its static camera's stream alone; the other camera's image has no channels."""

    def __init__(self, stream: nn.Module) -> None:
        super().__init__()
        self.stream = stream

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        image = self.stream(feature.flatten(0, 1)).unflatten(0, feature.shape[:2])
        return image, image[:, :, :0]


def _cell(sizes: Any) -> dict[str, Any]:
    return {
        "action_dim": sizes.action,
        "deter_dim": sizes.deter,
        "stoch_dim": sizes.groups,
        "stoch_rank": sizes.classes,
        "hidden_dim": sizes.hidden,
        "layer_norm": True,
    }


def _options(target: Any, **values: Any) -> SimpleNamespace:
    """What hydra would read from a file: a class and its arguments."""
    return SimpleNamespace(_target_=target, **values)


def _instantiate(options: SimpleNamespace, **more: Any) -> Any:
    values = dict(vars(options))
    return values.pop("_target_")(**values, **more)


def _frameworks() -> dict[str, ModuleType]:
    """What stands for hydra, omegaconf, Lightning and wandb, which configure and log but compute nothing."""

    class LightningModule(nn.Module):
        def save_hyperparameters(self) -> None:
            pass

    utils = _module("hydra.utils", instantiate=_instantiate)
    lightning = _module("pytorch_lightning.utilities", rank_zero_only=lambda function: function)
    return {
        "hydra": _module("hydra", utils=utils),
        "hydra.utils": utils,
        "omegaconf": _module("omegaconf", DictConfig=SimpleNamespace),
        "pytorch_lightning": _module("pytorch_lightning", LightningModule=LightningModule, utilities=lightning),
        "pytorch_lightning.utilities": lightning,
        "wandb": _module("wandb"),
    }


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(contents)
    return module
