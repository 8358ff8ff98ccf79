"""Recurrent state-space model with discrete latents (DreamerV2, Hafner et al. 2021), the default core.

    belief h_t = GRU(h_{t-1}, z_{t-1}, a_{t-1})
    posterior z_t ~ q(z | h_t, e_t)      what the model believes after it has looked
    prior     z_t ~ p(z | h_t)           what it expects before it looks, and all that imagination has

TorchRL has no class for this model: its RSSMPriorV3 is DreamerV3's, with another recurrent cell (`torchrl_v3.py`).
`worldaction.kernels` has fast implementations of it: of filtering a batch (scan), of imagination (rollout, dream).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldaction.kernels import REFERENCE, Request, choose
from worldaction.kernels.rollout import cpu, native
from worldaction.kernels.rollout.reference import PriorWeights, gru, prior_step
from worldaction.kernels.scan.op import scan, scan_request
from worldaction.kernels.scan.reference import ScanWeights
from worldaction.kernels.weight_cache import WeightCache
from worldaction.world_model.accumulated_linear import deferred
from worldaction.world_model.cores.base import RecurrentCore
from worldaction.world_model.latent import Latent, Latents, one_hot, straight_through
from worldaction.world_model.nets import mlp

_STEPPING: dict[str, Any] = {"cpu": cpu, "native": native}
"""Implementations of the rollout that take a step at a time, too: `pack` and `step`."""
_packed: WeightCache[Callable[..., tuple[Tensor, Tensor]] | None] = WeightCache(4)
"""Outside of the modules, which are copied and sent to other processes: packed weights cannot be."""


class RSSM(RecurrentCore):
    """The recurrent core of DreamerV2, with a LayerNorm in its GRU cell. Randomness is always an argument."""

    name = "dreamer_v2"
    has_kernels = True

    def __init__(self, options: Any = None, **sizes: Any) -> None:
        """
        Args:
            options: none.
            sizes: see `RecurrentCore`.
        """
        super().__init__(options, **sizes)
        deter, hidden, flat = self.deter, self.hidden, self.groups * self.classes
        self.input_state = nn.Linear(flat, hidden, bias=False)
        self.input_action = nn.Linear(self.action, hidden)
        self.input_norm = nn.LayerNorm(hidden)
        self.gates = nn.Linear(hidden + deter, 3 * deter, bias=False)
        self.gates_norm = nn.LayerNorm(3 * deter)
        self.prior_net = mlp([deter, hidden, flat])
        self.posterior_embed = nn.Linear(self.embed, hidden)
        self.posterior_belief = nn.Linear(deter, hidden, bias=False)
        self.posterior_norm = nn.LayerNorm(hidden)
        self.posterior_logits = nn.Linear(hidden, flat)

    def observe(
        self,
        embed: Tensor,
        previous_action: Tensor,
        is_init: Tensor,
        uniform: Tensor,
        *,
        burn_in: int = 1,
        open_loop_from: Tensor | None = None,
    ) -> Latents:
        """See `RecurrentCore.observe`: the same, with what needs no recurrence computed for all frames at once."""
        batch, lead = embed.shape[0], burn_in - 1
        null = self.null_action.to(previous_action.dtype).expand(batch, lead, -1)
        # what depends on neither belief nor state is computed for all frames at once, in large products
        # [B, lead + T, U]; during the burn-in the action is null, and the first frame is seen again and again
        moved = self.input_action(torch.cat([null, previous_action], 1))
        seen = self.posterior_embed(embed)
        seen = torch.cat([seen[:, :1].expand(-1, lead, -1), seen], 1)
        if (kind := self._scanned_in(uniform)) is not None:
            return self._scan(embed, seen, moved, is_init, uniform, open_loop_from, dtype=kind)
        actions, looks = moved.unbind(1), seen.unbind(1)
        # [T, B, 1], one where the state is kept; the burn-in starts from zeros and is kept
        keep = (~is_init).to(embed.dtype).unsqueeze(-1).unbind(1)
        belief, state = embed.new_zeros(batch, self.deter), embed.new_zeros(batch, self.groups * self.classes)
        # the gradients of weights that every step uses are one product after the loop, not one a step
        in_state, gates = deferred(self.input_state.weight), deferred(self.gates.weight)
        believe = deferred(self.posterior_belief.weight)
        conclude = deferred(self.posterior_logits.weight, self.posterior_logits.bias)
        beliefs, states, posteriors, priors = [], [], [], []
        for step, (action, look) in enumerate(zip(actions, looks, strict=True)):
            frame = step - lead
            if frame > 0:
                belief, state = belief * keep[frame], state * keep[frame]
            # [B, U], then h_t [B, D]
            x = F.elu(self.input_norm(in_state(state) + action))
            belief = gru(x, belief, gates, (self.gates_norm.weight, self.gates_norm.bias))
            x = F.elu(self.posterior_norm(look + believe(belief)))
            # [B, S, C]
            probs = self._probabilities(conclude(x))
            believed = probs
            if open_loop_from is not None and frame >= 0:
                expected = self._probabilities(self.prior_net(belief))
                believed = torch.where((frame >= open_loop_from)[:, None, None], expected, probs)
                priors.append(expected)
            state = straight_through(believed, uniform[:, step])
            if frame >= 0:
                beliefs.append(belief)
                states.append(state)
                posteriors.append(probs)
        # [B, T, D]
        stacked = torch.stack(beliefs, 1)
        # no state depends on the prior where all is seen, so that it is computed once for all frames
        return Latents(
            embed=embed,
            belief=stacked,
            state=torch.stack(states, 1),
            posterior=torch.stack(posteriors, 1),
            prior=torch.stack(priors, 1) if priors else self._probabilities(self.prior_net(stacked)),
        )

    def predict(self, belief: Tensor, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """See `RecurrentCore.predict`."""
        belief = self._advance(belief, state, self.input_action(action))
        return belief, self._grouped(self.prior_net(belief))

    def correct(self, belief: Tensor, embed: Tensor) -> Tensor:
        """See `RecurrentCore.correct`."""
        x = F.elu(self.posterior_norm(self.posterior_embed(embed) + self.posterior_belief(belief)))
        return self._grouped(self.posterior_logits(x))

    def _scanned_in(self, uniform: Tensor) -> torch.dtype | None:
        """The precision of products in which an implementation of the scan serves; None where the loop is to be run."""
        if torch.compiler.is_compiling():
            return None
        kind = uniform.device.type
        mixed = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if mixed else self.gates.weight.dtype
        request = scan_request(self.scan_weights(), uniform.transpose(0, 1), dtype)
        return None if choose("scan", request).name == REFERENCE else dtype

    def _scan(
        self,
        embed: Tensor,
        looks: Tensor,
        actions: Tensor,
        is_init: Tensor,
        uniform: Tensor,
        open_loop_from: Tensor | None,
        *,
        dtype: torch.dtype,
    ) -> Latents:
        """`observe` as one operation: looks and actions [B, burn_in - 1 + T, U] are what the layers make of both."""
        lead = uniform.shape[1] - is_init.shape[1]
        # the burn-in starts from zeros and is kept
        keep = torch.cat([is_init.new_zeros(len(is_init), lead + 1), is_init[:, 1:]], 1).logical_not().float()
        frames = torch.arange(-lead, is_init.shape[1], device=embed.device)
        # [B, burn_in - 1 + T]
        imagined = None if open_loop_from is None else (frames >= 0) & (frames >= open_loop_from[:, None])
        with torch.autocast(embed.device.type, enabled=False):
            found = scan(
                self.scan_weights(),
                looks.float(),
                actions.float(),
                keep,
                uniform,
                imagined,
                unimix=self.unimix,
                dtype=dtype,
            )
        belief, state, posterior, prior = (part[:, lead:] for part in found)
        return Latents(embed=embed, belief=belief, state=state, posterior=posterior, prior=prior)

    def first(self, belief: Tensor, previous_action: Tensor, embed: Tensor, uniform: Tensor) -> Latent:
        """See `RecurrentCore.first`."""
        state = belief.new_zeros(len(belief), self.groups * self.classes)
        belief = self._advance(belief, state, self.input_action(previous_action))
        return self._see(belief, embed, uniform)

    def posterior(self, latent: Latent, previous_action: Tensor, embed: Tensor, uniform: Tensor) -> Latent:
        """See `RecurrentCore.posterior`; the prior's layers are left out."""
        state = one_hot(latent.code, self.classes)
        belief = self._advance(latent.belief, state, self.input_action(previous_action))
        return self._see(belief, embed, uniform)

    def prior(self, latent: Latent, action: Tensor, uniform: Tensor) -> Latent:
        """See `RecurrentCore.prior`; by a fast implementation where the device has one for a frozen model."""
        if (step := self._packed(latent.belief, action)) is not None:
            return Latent(*step(*latent, action, uniform, unimix=self.unimix))
        return Latent(*prior_step(self.prior_weights(), *latent, action, uniform, unimix=self.unimix))

    def prior_weights(self) -> PriorWeights:
        """The prior's weights in the order in which kernels take them; views, except for one transposed matrix."""
        first, norm, last = self._prior_layers()
        return PriorWeights(
            state_rows=self._state_rows(),
            action=self.input_action.weight,
            input_bias=self.input_action.bias,
            input_norm=(self.input_norm.weight, self.input_norm.bias),
            gates=self.gates.weight,
            gates_norm=(self.gates_norm.weight, self.gates_norm.bias),
            hidden=first.weight,
            hidden_bias=first.bias,
            hidden_norm=(norm.weight, norm.bias),
            logits=last.weight,
            logits_bias=last.bias,
        )

    def scan_weights(self) -> ScanWeights:
        """The weights of `observe` in the order in which kernels take them: the parameters themselves."""
        first, norm, last = self._prior_layers()
        layers = (self.gates_norm, self.posterior_norm, norm)
        gates_norm, look_norm, hidden_norm = ((layer.weight, layer.bias) for layer in layers)
        return ScanWeights(
            self.input_state.weight,
            *(self.input_norm.weight, self.input_norm.bias),
            *(self.gates.weight, *gates_norm),
            *(self.posterior_belief.weight, *look_norm),
            *(self.posterior_logits.weight, self.posterior_logits.bias),
            *(first.weight, first.bias, *hidden_norm, last.weight, last.bias),
        )

    def _packed(self, belief: Tensor, action: Tensor) -> Callable[..., tuple[Tensor, Tensor]] | None:
        """A CPU's fast `prior_step` with its weights, made once for a frozen model; None where none serves."""
        parameters = self._prior_parameters()
        # packed weights are copies: with them nothing could be traced, and no gradient would reach the parameters
        traced = torch.compiler.is_compiling() or belief.requires_grad or action.requires_grad
        if traced or belief.dtype != torch.float32 or any(p.requires_grad or p.is_inference() for p in parameters):
            return None

        def pack() -> Callable[..., tuple[Tensor, Tensor]] | None:
            request = Request(belief.device, self.imagine_in, len(belief), {"deter": self.deter, "groups": self.groups})
            serves = _STEPPING.get(choose("rollout", request).name)
            packed = serves and serves.pack(self.prior_weights(), self.groups, dtype=self.imagine_in)
            return partial(serves.step, packed) if serves else None

        return _packed.get(parameters, (self.groups, self.imagine_in), pack)

    def _prior_layers(self) -> tuple[nn.Linear, nn.LayerNorm, nn.Linear]:
        first, norm, _, last = self.prior_net
        assert isinstance(first, nn.Linear)
        assert isinstance(norm, nn.LayerNorm)
        assert isinstance(last, nn.Linear)
        return first, norm, last

    def _prior_parameters(self) -> list[Tensor]:
        layers = (self.input_state, self.input_action, self.input_norm, self.gates, self.gates_norm, *self.prior_net)
        return [p for layer in layers for p in layer._parameters.values() if p is not None]

    def _state_rows(self) -> Tensor:
        return self.input_state.weight.t().contiguous()

    def _advance(self, belief: Tensor, state: Tensor, action: Tensor) -> Tensor:
        x = F.elu(self.input_norm(self.input_state(state) + action))
        return gru(x, belief, self.gates.weight, (self.gates_norm.weight, self.gates_norm.bias))

    def _probabilities(self, logits: Tensor) -> Tensor:
        return self.distribution(self._grouped(logits))

    def _grouped(self, logits: Tensor) -> Tensor:
        return logits.unflatten(-1, (self.groups, self.classes))
