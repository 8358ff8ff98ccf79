"""The policy as users load and call it: world model, policy head, and the state that ties an episode together.

    policy = Policy.from_pretrained("runs/.../policies/open_drawer-ppo")
    action, state = policy.predict(observation, state, episode_start)          # Stable-Baselines3's convention
    policy.reset(); action = policy.select_action(observation)                 # LeRobot's
    policy(tensordict)["action"]; env.rollout(100, policy)                     # TorchRL's

One decision yields a chunk of K actions; the world model takes in every frame in between.

    frame      0    1    2    3    4    5    6    7
    filtered   x    x    x    x    x    x    x    x
    decided    x    .    .    .    x    .    .    .
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from agents.policies.base import ImprovedPolicy, PolicyHead, identity, known_head
from worldaction.errors import UserError
from worldaction.io.artefact import load_tensors, read_json, save_tensors, write_json
from worldaction.random import Stream, normal, uniform
from worldaction.spec import ACTION, IS_INIT
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import ModelConfig, WorldModel, restore

Actor = PolicyHead | ImprovedPolicy


@dataclass
class PolicyState:
    """What one batch of episodes remembers between two frames."""

    latent: Latent  # [B]
    action: Tensor  # [B, A], the last one given
    chunk: Tensor  # [B, K, A], the current decision
    age: Tensor  # [B] int64, frames since that decision
    frame: int  # frames since the state was made: names the random numbers


class Policy(TensorDictModuleBase):
    """A world model and a policy head on its latents.

    A TensorDict module, because TorchRL hands anything else the observations one by one instead of the frame.
    """

    def __init__(self, model: WorldModel, actor: Actor, *, task: str, seed: int = 0) -> None:
        """
        Args:
            model: frozen world model.
            actor: cloned head on its features, or an improved one.
            task: what it does.
            seed: of its random numbers.
        """
        super().__init__()
        self.model, self.actor, self.task, self.seed = model, actor.eval(), task, seed
        self.in_keys, self.out_keys = [*model.config.observed, IS_INIT], [ACTION]
        self._session: PolicyState | None = None

    # One frame --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def act(
        self,
        observation: Mapping[str, Tensor],
        state: PolicyState | None,
        *,
        start: Tensor,
        rows: Tensor,
        deterministic: bool = False,
    ) -> tuple[Tensor, PolicyState]:
        """Take in a frame of every episode and give every episode its next action.

        Args:
            observation: cameras uint8 [B, H, W, 3] and robot_obs [B, P].
            state: what the last call returned; None before the first.
            start: [B] bool, the frame is an episode's first.
            rows: [B] int64, global names of the episodes: equal names, equal random numbers.
            deterministic: leave out the randomness that the head can do without; see `PolicyHead.sample`.

        Returns:
            actions [B, A] and the state for the next call.
        """
        if state is not None and len(state.age) != len(rows):
            raise UserError(f"the state is of {len(state.age)} episodes and the observation of {len(rows)}; start anew")
        embed = self.model.embed(observation)
        if embed.shape[:-1] != rows.shape:
            raise UserError(f"observations {list(embed.shape[:-1])} with {len(rows)} names; give one name a row")
        fresh = None if state is not None and not bool(start.any()) else self._begin(embed, rows)
        if state is None:
            assert fresh is not None
            state = fresh
        else:
            state = self._follow(state, embed, rows)
            if fresh is not None:
                state = _where(start, fresh, state)
        due = state.age % self.actor.chunk == 0
        if bool(due.any()):
            decided = self._decide(state, rows, deterministic)
            state.chunk = torch.where(due[:, None, None], decided, state.chunk)
            state.age = torch.where(due, 0, state.age)
        action = state.chunk[torch.arange(len(rows)), state.age]
        return action, PolicyState(state.latent, action, state.chunk, state.age + 1, state.frame + 1)

    def _begin(self, embed: Tensor, rows: Tensor) -> PolicyState:
        size = len(embed)
        null = embed.new_tensor(self.model.config.layout.null_action)
        return PolicyState(
            latent=self.model.start(embed, seed=self.seed, rows=rows),
            action=null.expand(size, -1),
            chunk=null.expand(size, self.actor.chunk, -1),
            age=torch.zeros(size, dtype=torch.int64, device=embed.device),
            frame=0,
        )

    def _follow(self, state: PolicyState, embed: Tensor, rows: Tensor) -> PolicyState:
        draws = uniform(self.seed, Stream.POSTERIOR, rows, state.frame, self.model.config.groups)
        latent = self.model.posterior(state.latent, state.action, embed, draws)
        return PolicyState(latent, state.action, state.chunk, state.age, state.frame)

    def _decide(self, state: PolicyState, rows: Tensor, deterministic: bool) -> Tensor:
        steps, width = self.actor.noise_shape
        noise = normal(self.seed, Stream.POLICY, rows, state.frame, steps * width).view(-1, steps, width)
        return self.actor.sample(self.model.feature(state.latent), noise, deterministic=deterministic)

    # Stable-Baselines3, LeRobot, TorchRL ------------------------------------------------------------------------------

    def predict(
        self,
        observation: Mapping[str, Any],
        state: PolicyState | None = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, PolicyState]:
        """As Stable-Baselines3's `predict`; one observation or a batch of them.

        Args:
            observation: arrays with the keys of the play table.
            state: what the last call returned.
            episode_start: [B] bool; where true the state is forgotten. None: only if there is no state.
            deterministic: see `act`.
        """
        tensors = {key: torch.as_tensor(np.asarray(observation[key])) for key in self._keys(observation)}
        single = not self.model.check(tensors)
        if single:
            tensors = {key: value[None] for key, value in tensors.items()}
        size = len(next(iter(tensors.values())))
        fresh = torch.full((size,), state is None)
        if episode_start is not None:
            fresh = fresh | torch.as_tensor(np.asarray(episode_start, dtype=bool)).reshape(-1)
        device = self.model.proprio_mean.device
        tensors = {key: value.to(device) for key, value in tensors.items()}
        action, state = self.act(
            tensors, state, start=fresh.to(device), rows=torch.arange(size, device=device), deterministic=deterministic
        )
        numbers = action.cpu().numpy()
        return (numbers[0] if single else numbers), state

    def reset(self) -> None:
        """Forget the episodes that `select_action` and TorchRL's calls follow.

        The random numbers begin again too: an episode is a function of what is seen and of the policy's seed.
        """
        self._session = None

    def select_action(self, observation: Mapping[str, Any]) -> np.ndarray:
        """As LeRobot's `select_action`: the next action of the episode that began at the last `reset`."""
        action, self._session = self.predict(observation, self._session)
        return action

    def forward(self, frame: TensorDictBase) -> TensorDictBase:
        """As a TorchRL policy of one environment at a time: its state is here and not in the frames.

        Args:
            frame: observations and is_init [...], as InitTracker gives it; the next one of the same episodes.

        Returns:
            the frame, with "action" [..., A].
        """
        keys = self._keys(frame)
        if IS_INIT not in frame.keys():  # noqa: SIM118 - TensorDict has no `in`
            raise UserError(
                f"the frame has no {IS_INIT!r}, which says where episodes begin; "
                "append torchrl.envs.InitTracker() to the environment"
            )
        device = self.model.proprio_mean.device
        # [...] --> [B], also where there is no axis
        flat = frame.select(*keys, IS_INIT).reshape(-1).to(device)
        observation, start = {key: flat[key] for key in keys}, flat[IS_INIT].reshape(-1)
        self.model.check(observation)
        if self._session is not None and len(self._session.age) != len(start) and bool(start.all()):
            self._session = None  # of another environment, of which nothing goes on
        action, self._session = self.act(
            observation, self._session, start=start, rows=torch.arange(len(start), device=device)
        )
        return frame.set(ACTION, action.reshape(*frame.batch_size, -1).to(frame[keys[0]].device))

    def _keys(self, observation: Any) -> list[str]:
        keys = list(self.model.config.observed)
        missing = [key for key in keys if key not in observation.keys()]  # noqa: SIM118 - TensorDict has no `in`
        if missing:
            raise UserError(f"observation has no {missing[0]!r}; this policy sees {', '.join(keys)}")
        return keys

    # Disk -------------------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config.json and model.safetensors, which `from_pretrained` reads."""
        folder = Path(folder)
        values = {
            "task": self.task,
            "seed": self.seed,
            "model": asdict(self.model.config) | {"losses": ()},
            "actor": config_of(self.actor),
        }
        weights = {f"model.{k}": v for k, v in self.model.state_dict().items() if not k.startswith("losses.")}
        weights |= {f"actor.{k}": v for k, v in self.actor.state_dict().items()}
        save_tensors(folder / "model.safetensors", weights)
        write_json(folder / "config.json", values)

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, *, device: torch.device | str = "cpu", head: type[PolicyHead] | None = None
    ) -> Policy:
        """Read what `save_pretrained` wrote. Nothing that the file names is imported.

        Args:
            folder: holds config.json and model.safetensors.
            device: where to compute.
            head: the class of the policy head; by default the one that the file names, which is one of ours or has
                been imported already.

        Raises:
            UserError: the folder holds no policy, or one whose head is not imported.
        """
        folder = Path(folder)
        values = read_json(folder / "config.json")
        if missing := [key for key in ("task", "seed", "model", "actor") if key not in values]:
            raise UserError(f"{folder / 'config.json'} has no {missing[0]!r}, so it is no policy's; give its folder")
        config = ModelConfig.from_dict(values["model"], source=folder / "config.json")
        # a policy needs none of the losses, which are code, and a file that names some is not to be trusted
        model = WorldModel(replace(config, losses=()))
        actor = build_actor(values["actor"], head)
        weights = load_tensors(folder / "model.safetensors")
        for prefix, module in (("model.", model), ("actor.", actor)):
            part = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            restore(module, part, source=folder / "model.safetensors")
            module.to(device).eval().requires_grad_(False)
        return cls(model, actor, task=values["task"], seed=values["seed"])


def config_of(actor: Actor) -> dict[str, Any]:
    """What `build_actor` builds an equal, untrained actor from: JSON values."""
    head = actor.base if isinstance(actor, ImprovedPolicy) else actor
    return {"head": identity(type(head))} | actor.config


def build_actor(config: Mapping[str, Any], head: type[PolicyHead] | None = None) -> Actor:
    """An untrained actor from its `config_of`. Nothing that it names is imported.

    Args:
        config: of a head, or with `trained_steps` of an improved one. Without a name of the head it is diffusion's.
        head: its class; by default the one that the config names.

    Raises:
        UserError: the head is not imported, or is not built from this.
    """
    values = dict(config)
    cls = known_head(values.pop("head", "diffusion"), head)
    trained = values.pop("trained_steps", None)
    try:
        built = cls(**values)
    except TypeError as error:
        raise UserError(f"policy head {cls.__name__} cannot be built from what was saved: {error}") from error
    return built if trained is None else built.improvable(trained_steps=trained)


def _where(start: Tensor, fresh: PolicyState, old: PolicyState) -> PolicyState:
    """The fresh state where an episode starts, else the old one."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(start.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return PolicyState(
        latent=Latent(pick(fresh.latent.belief, old.latent.belief), pick(fresh.latent.code, old.latent.code)),
        action=pick(fresh.action, old.action),
        chunk=pick(fresh.chunk, old.chunk),
        age=pick(fresh.age, old.age),
        frame=old.frame,
    )
