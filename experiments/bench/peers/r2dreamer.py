"""r2dreamer (github.com/NM512/r2dreamer), the successor of dreamerv3-torch that claims five times its speed on a GPU.

Its modules run unchanged. `RSSM.imagine_with_action` imagines. Its training step cannot be asked for the world model
alone, so the world-model part of `Dreamer._cal_grad` is called here line by line, in the precision of the others (its
own is float16 autocast on a GPU), with its clipping and its optimiser. It is entered twice: with its own loss, which
needs no decoder, and with DreamerV3's, which is the same work as the others'. Convolutions: 5x5, stride 1, max-pooled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from experiments.bench.base import Sizes, Windows, Work, Workload, count, flops, without_gradients
from experiments.bench.peers.fetched import Settings, import_from, quietly

LOSSES = {"r2dreamer, no decoder": "r2dreamer", "r2dreamer": "dreamer"}
BLOCKS = 8


class R2Dreamer:
    """The library.

    Args:
        checkout: the repository's folder.
        device: where to compute.
    """

    def __init__(self, checkout: Path, device: torch.device) -> None:
        self.modules = import_from(checkout, ["rssm", "dreamer"])
        self.device = device

    def imagination(self, workload: Workload) -> Mapping[str, Work]:
        """`RSSM.imagine_with_action`."""
        core = self.modules["rssm"].RSSM(_core(workload.sizes, self.device), 1, workload.sizes.action).to(self.device)
        actions, start = workload.actions(self.device), core.initial(workload.batch)
        run = without_gradients(lambda: core.imagine_with_action(*start, actions))
        about = f"its RSSM: GRU of {BLOCKS} blocks with RMSNorm, dense one-hots, gumbel_softmax"
        used = count(core._deter_net, core._img_net)
        return {"r2dreamer": Work(run, workload.steps, about, parameters=used, flops=flops(run))}

    def training(self, windows: Windows) -> Mapping[str, Work]:
        """The world-model part of its update, with each of two losses."""
        return {name: self._training(windows, loss) for name, loss in LOSSES.items()}

    def _training(self, windows: Windows, rep_loss: str) -> Work:
        images, actions, first = windows.data(self.device)
        spaces = {"image": SimpleNamespace(shape=tuple(images.shape[2:]))}
        with quietly():
            agent = self.modules["dreamer"].Dreamer(
                _config(windows, self.device, rep_loss), SimpleNamespace(spaces=spaces), _Action(windows.sizes.action)
            )
        agent.to(self.device)
        parts = [agent.encoder, agent.rssm, agent.reward, agent.cont]
        parts.append(agent.decoder if rep_loss == "dreamer" else agent.prj)
        parameters = [p for part in parts for p in part.parameters()]
        optimizer = type(agent._optimizer)(parameters, lr=4e-5, betas=(0.9, 0.999), eps=1e-20)
        zeros = torch.zeros(*first.shape, 1, device=self.device)
        data = TensorDict(
            {"image": images, "action": actions, "is_first": first, "is_terminal": zeros, "reward": zeros}, first.shape
        )

        def step() -> None:
            batch = data.copy()
            batch["image"] = data["image"].float() / 255
            losses = _losses(agent, batch, rep_loss)
            torch.stack([agent._loss_scales[name] * value for name, value in losses.items()]).sum().backward()
            with quietly():
                agent._agc(parameters)
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        how = "with DreamerV3's loss" if rep_loss == "dreamer" else "with its own loss: no image is drawn"
        about = f"the world model of its Dreamer {how}; reward and continue heads, LaProp"
        return Work(step, 1, about, parameters=count(*parts), flops=flops(step))


class _Action:
    """What it asks of an action space."""

    def __init__(self, size: int) -> None:
        self.shape = (size,)


def _losses(agent: Any, data: TensorDict, rep_loss: str) -> dict[str, Tensor]:
    """The world-model part of `Dreamer._cal_grad`, by calls to its modules."""
    embed = agent.encoder(data)
    initial = agent.rssm.initial(len(embed))
    stoch, deter, posterior = agent.rssm.observe(embed, data["action"], initial, data["is_first"])
    _, prior = agent.rssm.prior(deter)
    dyn, rep = agent.rssm.kl_loss(posterior, prior, agent.kl_free)
    losses = {"dyn": dyn.mean(), "rep": rep.mean()}
    feature = agent.rssm.get_feat(stoch, deter)
    if rep_loss == "dreamer":
        losses |= {key: -d.log_prob(data[key]).mean() for key, d in agent.decoder(stoch, deter).items()}
    else:
        losses["barlow"] = _barlow(agent.prj(feature.flatten(0, 1)), embed.flatten(0, 1).detach(), agent.barlow_lambd)
    losses["rew"] = -agent.reward(feature).log_prob(data["reward"]).mean()
    losses["con"] = -agent.cont(feature).log_prob(1 - data["is_terminal"]).mean()
    return losses


def _barlow(feature: Tensor, embed: Tensor, weight: float) -> Tensor:
    """Barlow Twins (Zbontar et al. 2021, eq. 1) between [N, E] and [N, E], which is its loss."""
    one, other = ((x - x.mean(0)) / (x.std(0) + 1e-8) for x in (feature, embed))
    correlation = one.T @ other / len(one)
    diagonal = correlation.diagonal()
    off = correlation.square().sum() - diagonal.square().sum()
    return (diagonal - 1).square().sum() + weight * off


def _core(sizes: Sizes, device: torch.device) -> Settings:
    return Settings(
        stoch=sizes.groups,
        deter=sizes.deter,
        hidden=sizes.hidden,
        discrete=sizes.classes,
        img_layers=2,
        obs_layers=1,
        dyn_layers=1,
        blocks=BLOCKS,
        act="SiLU",
        norm=True,
        unimix_ratio=sizes.unimix,
        initial="learned",
        device=str(device),
    )


def _config(windows: Windows, device: torch.device, rep_loss: str) -> Settings:
    """Its own settings at these sizes."""
    sizes, units = windows.sizes, windows.sizes.hidden
    net = {"units": units, "act": "SiLU", "norm": True, "device": str(device), "symlog_inputs": False}
    stack = Settings(act="SiLU", norm=True, kernel_size=5, minres=4, depth=windows.depth, mults=[2, 3, 4, 4])
    keys = {"mlp_keys": "$^", "cnn_keys": "image"}

    def head(name: str, dist: Any, **options: Any) -> Settings:
        return Settings(name=name, dist=dist, **{"layers": 1, "outscale": 1.0, **net, **options})

    bins = Settings(name="symexp_twohot", bin_num=255)
    normal = Settings(cont=Settings(name="bounded_normal", min_std=0.1, max_std=1.0))
    return Settings(
        device=str(device),
        rep_loss=rep_loss,
        act_entropy=3e-4,
        kl_free=1.0,
        imag_horizon=15,
        horizon=333,
        lamb=0.95,
        compile=False,
        log_grads=False,
        lr=4e-5,
        agc=0.3,
        pmin=1e-3,
        eps=1e-20,
        beta1=0.9,
        beta2=0.999,
        warmup=1000,
        slow_target_update=1,
        slow_target_fraction=0.02,
        loss_scales=Settings(barlow=0.05, recon=1.0, rew=1.0, con=1.0, dyn=1.0, rep=0.1),
        r2dreamer=Settings(lambd=5e-4),
        rssm=_core(sizes, device),
        encoder=Settings(cnn=stack, **keys),
        decoder=Settings(
            cnn=Settings(stack, units=units, bspace=8, outscale=1.0), cnn_dist=Settings(name="mse"), **keys
        ),
        reward=head("reward", bins, shape=[255], outscale=0.0),
        cont=head("cont", Settings(name="binary"), shape=[1]),
        actor=head("actor", normal, layers=3, outscale=0.01),
        critic=head("value", bins, shape=[255], layers=3, outscale=0.0),
    )
