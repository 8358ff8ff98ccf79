"""The policy as users load and call it: world model, policy head, and the state that ties an episode together.

    policy = Policy.from_pretrained("runs/.../policies/open_drawer-ppo")
    action, state = policy.predict(observation, state, episode_start)          # Stable-Baselines3's convention
    policy.reset(); action = policy.select_action(observation)                 # LeRobot's
    policy(tensordict)["action"]; env.rollout(100, policy)                     # TorchRL's

One decision yields a chunk of K actions; the world model takes in every frame in between.

    frame      0    1    2    3    4    5    6    7
    filtered   x    x    x    x    x    x    x    x
    decided    x    .    .    .    x    .    .    .

Random numbers are a function of the policy's seed, the episode's name and the frame within the episode. Every episode
has a name of its own, so its noise is drawn anew; `reset(seed=...)` begins a sequence of names that is always the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_type_hints

import numpy as np
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from agents.policies.base import SAMPLERS, ImprovedPolicy, PolicyHead, Sampler, identity, known_head
from worldaction.config import Range
from worldaction.errors import UserError, unknown
from worldaction.interface import RobotInterface
from worldaction.io.atomic import load_tensors, plain, save_tensors, write_json
from worldaction.io.sealed_json import SEAL, read_json
from worldaction.io.typed_json import typed
from worldaction.random import Stream, normal, uniform
from worldaction.spec import ACTION, IS_INIT, ROBOT
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import ModelConfig, WorldModel, part_of, rebuilt

Actor = PolicyHead | ImprovedPolicy
FRESH_NAMES: Final = range(2**31, 2**32)
"""Names of episodes that nobody named: apart from those of evaluations and dreams, which count from 0."""


@dataclass(frozen=True)
class Saved:
    """A policy's config.json."""

    task: str
    seed: Annotated[int, Range("0 or more and below 2^63", lambda value: 0 <= value < 2**63)]
    model: dict[str, Any]
    actor: dict[str, Any]
    sampler: Sampler = "stochastic"
    """Policies of before there was a choice sample."""
    env: dict[str, Any] | None = None
    interface: dict[str, Any] | None = None
    """Of the robot; policies of before have none."""
    weights: str | None = None
    """The hash of the tensors beside it; policies of before have none."""


@dataclass
class PolicyState:
    """What one batch of episodes remembers between two frames."""

    latent: Latent  # [B]
    action: Tensor  # [B, A], the last one given
    chunk: Tensor  # [B, K, A], the current decision
    age: Tensor  # [B] int64, frames since that decision
    name: Tensor  # [B] int64, of each episode: equal names, equal random numbers
    frame: Tensor  # [B] int64, frames since the episode began
    decided: Tensor  # [B] bool, the decision of the next frame has been taken already, see `Policy.look_ahead`


class Policy(TensorDictModuleBase):
    """A world model and a policy head on its latents.

    A TensorDict module, because TorchRL hands anything else the observations one by one instead of the frame.
    """

    def __init__(
        self,
        model: WorldModel,
        actor: Actor,
        *,
        task: str,
        seed: int = 0,
        sampler: Sampler = "stochastic",
        env: Mapping[str, Any] | None = None,
        interface: RobotInterface | None = None,
    ) -> None:
        """
        Args:
            model: frozen world model.
            actor: cloned head on its features, or an improved one.
            task: what it does.
            seed: of its random numbers.
            sampler: how it acts; see `sampler`.
            env: the settings of the environment that it is evaluated in, as plain values of `EnvConfig`, for
                `envs.benchmark.env_of`; None if nobody knows.
            interface: names, pictures and units of the robot whose data it learned from; None takes the keys of the
                play store and gives actions in [-1, 1].
        """
        super().__init__()
        self.model, self.actor, self.task, self.seed = model, actor.eval(), task, seed
        self.sampler, self.env, self.interface = sampler, env, interface or RobotInterface()
        self.unusable_frames: Literal["refuse", "hold"] = "refuse"
        """What to do about a frame of NaN or infinite numbers: refuse it, or hold still, which keeps the state and
        gives the action that moves nothing: the null action with the gripper as it was, or, of absolute actions, the
        last one again."""
        self.in_keys, self.out_keys = [*model.config.observed, IS_INIT], [ACTION]
        self._session: PolicyState | None = None
        self._names = np.random.default_rng(seed)

    @property
    def sampler(self) -> Sampler:
        """How actions are drawn, by every way of calling: "stochastic", or "deterministic" as `PolicyHead` has it.

        It is saved with the policy; assign the other one to act by that.

        Raises:
            UserError: there is no such sampler, or the head has but one.
        """
        return self._sampler

    @sampler.setter
    def sampler(self, sampler: Sampler) -> None:
        if sampler not in SAMPLERS:
            raise unknown("sampler", sampler, SAMPLERS)
        if sampler == "deterministic" and not self.actor.has_deterministic:
            raise UserError("sampler 'deterministic': this policy's head has but one sampler; give 'stochastic'")
        self._sampler: Sampler = sampler

    # One frame --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def act(
        self,
        observation: Mapping[str, Tensor],
        state: PolicyState | None,
        *,
        start: Tensor,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, PolicyState]:
        """Take in a frame of every episode and give every episode its next action, in [-1, 1].

        This is what the library's own code calls; `predict`, `select_action` and TorchRL's calls speak to a robot.

        Args:
            observation: cameras uint8 [B, H, W, 3] and robot_obs [B, P].
            state: what the last call returned; None before the first, where all episodes start.
            start: [B] bool, the frame is an episode's first.
            rows: [B] int64, names in [0, 2**31) for the episodes that start: equal names, equal random numbers. None
                draws fresh ones.

        Returns:
            actions [B, A] and the state for the next call.

        Raises:
            UserError: the observation lacks something, its batch is not that of the state or of the names, or a
                number in it is NaN or infinite (see `unusable_frames`).
        """
        if state is not None and len(state.age) != len(start):
            raise UserError(f"a state of {len(state.age)} episodes with observations of {len(start)}; start anew")
        names = start if rows is None else rows
        embed = self.model.embed(observation)
        if embed.shape[:-1] != names.shape:
            raise UserError(f"observations {list(embed.shape[:-1])} with {len(names)} names; give one name a row")
        bad = self._unusable(observation, embed)
        if bool(bad.any()):
            return self._without(bad, observation, state, start=start, rows=rows)
        state = self._take_in(embed, state, start, rows)
        state = self._decided(state)
        action = state.chunk[torch.arange(len(start)), state.age]
        decided = torch.zeros_like(state.decided)
        return action, replace(state, action=action, age=state.age + 1, frame=state.frame + 1, decided=decided)

    @torch.no_grad()
    def look_ahead(self, state: PolicyState) -> tuple[np.ndarray, PolicyState]:
        """What the next frame of every episode will be answered with, before it is seen.

        Within a chunk that is no other action. Where the next frame begins a chunk, it is decided now, from one frame
        less, with the noise of the frame in which it begins; `act` and `predict` then follow that decision.

        Args:
            state: as `act` and `predict` return it.

        Returns:
            actions [B, A] in the robot's units, and the state for the next call.
        """
        state = self._decided(state)
        action = state.chunk[torch.arange(len(state.age)), state.age]
        return self.interface.to_robot(action.cpu().numpy()), state

    def _decided(self, state: PolicyState) -> PolicyState:
        """The state, with a decision wherever a chunk is over and none has been taken yet."""
        due = (state.age % self.actor.chunk == 0) & ~state.decided
        if not bool(due.any()):
            return state
        chunk = torch.where(due[:, None, None], self._decide(state), state.chunk)
        return replace(state, chunk=chunk, age=torch.where(due, 0, state.age), decided=state.decided | due)

    def _unusable(self, observation: Mapping[str, Tensor], embed: Tensor) -> Tensor:
        """[B] bool, NaN, an infinity, or a number so large that it becomes one. What is drawn of them would be finite:
        a comparison with NaN is false.
        """
        fine = embed.isfinite().all(-1)
        if ROBOT in self.in_keys:
            fine = fine & observation[ROBOT].float().isfinite().all(-1)
        return ~fine

    def _without(
        self,
        bad: Tensor,
        observation: Mapping[str, Tensor],
        state: PolicyState | None,
        *,
        start: Tensor,
        rows: Tensor | None,
    ) -> tuple[Tensor, PolicyState]:
        """As `act`, of episodes of which some have a frame that cannot be used: these hold still, if they may."""
        number = int(bad.nonzero()[0])
        if self.unusable_frames != "hold" or state is None or bool((bad & start).any()):
            why = "the first frame of an episode" if self.unusable_frames == "hold" else "an observation"
            raise UserError(
                f"{ROBOT} of {why} (row {number}) holds NaN, an infinity or a number beyond float32; repair the sensor,"
                ' or let the policy hold still by unusable_frames = "hold" where an episode has begun'
            )
        zeros = {key: value.masked_fill(bad.view(-1, *[1] * (value.ndim - 1)), 0) for key, value in observation.items()}
        _, seen = self.act(zeros, state, start=start, rows=rows)
        held = _where(bad, replace(state, action=self._still(state.action), frame=state.frame + 1), seen)
        return held.action, held

    def _still(self, action: Tensor) -> Tensor:
        """[B, A], the action after which a robot stays where it is and as it grips."""
        layout = self.model.config.layout
        if layout.absolute:
            return action
        still = action.new_tensor(layout.null_action).expand_as(action).clone()
        binary = list(layout.binary)
        still[:, binary] = action[:, binary]
        return still

    def _take_in(self, embed: Tensor, state: PolicyState | None, start: Tensor, rows: Tensor | None) -> PolicyState:
        """Filter the frame; begin the episodes that start with it."""
        if state is None:
            return self._begin(embed, self._fresh_names(torch.ones_like(start)) if rows is None else rows)
        followed = self._follow(state, embed)
        if not bool(start.any()):
            return followed
        # of the rows that go on, what `_begin` makes is not used
        return _where(start, self._begin(embed, self._fresh_names(start) if rows is None else rows), followed)

    def _fresh_names(self, start: Tensor) -> Tensor:
        """[B] int64, the next names of the sequence for the rows that start, 0 for the others."""
        drawn = self._names.integers(FRESH_NAMES.start, FRESH_NAMES.stop, size=int(start.sum()))
        names = torch.zeros_like(start, dtype=torch.int64)
        names[start] = torch.from_numpy(drawn).to(start.device)
        return names

    def _begin(self, embed: Tensor, names: Tensor) -> PolicyState:
        size = len(embed)
        null = embed.new_tensor(self.model.config.layout.null_action)
        return PolicyState(
            latent=self.model.start(embed, seed=self.seed, rows=names),
            action=null.expand(size, -1),
            chunk=null.expand(size, self.actor.chunk, -1),
            age=torch.zeros_like(names),
            name=names,
            frame=torch.zeros_like(names),
            decided=torch.zeros_like(names, dtype=torch.bool),
        )

    def _follow(self, state: PolicyState, embed: Tensor) -> PolicyState:
        draws = uniform(self.seed, Stream.POSTERIOR, state.name, state.frame, self.model.config.groups)
        return replace(state, latent=self.model.posterior(state.latent, state.action, embed, draws))

    def _decide(self, state: PolicyState) -> Tensor:
        steps, width = self.actor.noise_shape
        noise = normal(self.seed, Stream.POLICY, state.name, state.frame, steps * width).view(-1, steps, width)
        feature = self.model.feature(state.latent)
        return self.actor.sample(feature, noise, deterministic=self.sampler == "deterministic")

    # Stable-Baselines3, LeRobot, TorchRL ------------------------------------------------------------------------------

    def seen(self, observation: Any) -> dict[str, np.ndarray]:
        """What a robot gives, as the policy sees it; see `RobotInterface.observe`."""
        config = self.model.config
        return self.interface.observe(
            observation, cameras=config.cameras, side=config.image_size, robot=config.layout.robot
        )

    def predict(
        self,
        observation: Mapping[str, Any],
        state: PolicyState | None = None,
        episode_start: Any = None,
        deterministic: bool | None = None,
    ) -> tuple[np.ndarray, PolicyState]:
        """As Stable-Baselines3's `predict`; one observation or a batch of them, the action in the robot's units.

        Every row whose episode starts has noise of its own, drawn anew; see `reset`.

        Args:
            observation: what the robot gives; see `RobotInterface.observe`.
            state: what the last call returned.
            episode_start: [B] bool; where true the state is forgotten. None: only if there is no state.
            deterministic: taken because Stable-Baselines3 gives it, and changes nothing. There it leaves out the noise
                of exploration, of which this policy has none; and so `evaluate_policy`, which gives True unless told
                otherwise, measures this policy and no other. `sampler` chooses how actions are drawn.
        """
        tensors = {key: _tensor(key, value) for key, value in self.seen(observation).items()}
        single = not self.model.check(tensors)
        if single:
            tensors = {key: value[None] for key, value in tensors.items()}
        size = len(next(iter(tensors.values())))
        fresh = torch.full((size,), state is None)
        if episode_start is not None:
            fresh = fresh | torch.as_tensor(np.asarray(episode_start, dtype=bool)).reshape(-1)
        device = self.model.proprio_mean.device
        tensors = {key: value.to(device) for key, value in tensors.items()}
        action, state = self.act(tensors, state, start=fresh.to(device))
        numbers = self.interface.to_robot(action.cpu().numpy())
        return (numbers[0] if single else numbers), state

    def reset(self, *, seed: int | None = None) -> None:
        """Forget the episodes that `select_action` and TorchRL's calls follow; the next one has noise of its own.

        Args:
            seed: as in Gymnasium's `reset`, begins the sequence of episodes that has this number: the next episode has
                the same noise whenever this is called, and so have those after it. All ways of calling draw from the
                sequence. A policy that was just loaded is at the beginning of the sequence of its own seed, and so is
                every copy in another process: give each a seed of its own.

        Raises:
            UserError: the seed is no whole number, or is below 0.
        """
        given: Any = seed
        if seed is not None and (not isinstance(given, int | np.integer) or given < 0):
            raise UserError(f"seed {seed!r}: give a whole number from 0 on")
        self._session = None
        if seed is not None:
            self._names = np.random.default_rng(seed)

    def select_action(self, observation: Mapping[str, Any]) -> np.ndarray:
        """As LeRobot's `select_action`: the next action of the episode that began at the last `reset`."""
        action, self._session = self.predict(observation, self._session)
        return action

    def forward(self, frame: TensorDictBase) -> TensorDictBase:
        """As a TorchRL policy of one environment at a time: its state is here and not in the frames.

        Args:
            frame: observations and is_init [...], as InitTracker gives it; the next one of the same episodes.

        Returns:
            the frame, with "action" [..., A] in the robot's units.
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
        action, self._session = self.act(observation, self._session, start=start)
        if self.interface.scale is not None:
            action = torch.from_numpy(self.interface.to_robot(action.cpu().numpy()))
        return frame.set(ACTION, action.reshape(*frame.batch_size, -1).to(frame[keys[0]].device))

    def _keys(self, observation: Any) -> list[str]:
        keys = list(self.model.config.observed)
        missing = [key for key in keys if key not in observation.keys()]  # noqa: SIM118 - TensorDict has no `in`
        if missing:
            raise UserError(f"observation has no {missing[0]!r}; this policy sees {', '.join(keys)}")
        return keys

    def describe(self) -> dict[str, Any]:
        """What the program of a robot has to know, as plain values; `null_action` and bounds in the robot's units."""
        config, robot = self.model.config, self.interface
        layout, known = config.layout, {one.key: plain(one) for one in robot.cameras}
        null = np.array(layout.null_action)
        return {
            "task": self.task,
            "env": None if self.env is None else self.env["env"],
            "source": robot.source,
            "rate": robot.rate,
            "cameras": {camera: known.get(camera) for camera in config.cameras},
            "pictures": f"cut to the square in the middle, averaged down to {config.image_size} x {config.image_size}",
            "state": list(robot.state),
            "numbers": layout.robot,
            "action": layout.action,
            "low": None if robot.scale is None else list(robot.scale.low),
            "high": None if robot.scale is None else list(robot.scale.high),
            "null_action": robot.to_robot(null).tolist(),
            "absolute": layout.absolute,
            "binary": list(layout.binary),
            "chunk": self.actor.chunk,
        }

    # Disk -------------------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config.json and model.safetensors, which `from_pretrained` reads."""
        folder = Path(folder)
        values = {
            "task": self.task,
            "seed": self.seed,
            "sampler": self.sampler,
            "env": self.env,
            "interface": plain(self.interface),
            "model": asdict(self.model.config) | {"losses": ()},
            "actor": config_of(self.actor),
        }
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items() if not k.startswith("losses.")}
        tensors |= {f"actor.{k}": v for k, v in self.actor.state_dict().items()}
        weights = save_tensors(folder / "model.safetensors", tensors)
        write_json(folder / "config.json", values | {"weights": weights})

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
        path, remedy = folder / "config.json", "give a policy's folder, or get this one anew"
        saved: Saved = read_json(path, Saved, remedy=remedy)
        where = folder / "model.safetensors"
        weights = load_tensors(where, expected=saved.weights)
        build_model, build_head = _builders(saved, head, source=path)
        policy = _assembled(
            saved,
            rebuilt(build_model, part_of(weights, "model."), source=where),
            rebuilt(build_head, part_of(weights, "actor."), source=where),
            source=path,
        )
        for module in (policy.model, policy.actor):
            module.to(device).eval().requires_grad_(False)
        return policy

    @classmethod
    def untrained(
        cls, values: Mapping[str, Any], *, source: Path | str, head: type[PolicyHead] | None = None
    ) -> Policy:
        """What a policy's config.json describes, before its weights are loaded. Nothing that it names is imported.

        Args:
            values: its content.
            source: where they come from, for errors.
            head: see `from_pretrained`.

        Raises:
            UserError: they are of another version, or their head is not imported.
        """
        saved: Saved = typed({key: value for key, value in values.items() if key != SEAL}, Saved, source)
        build_model, build_head = _builders(saved, head, source=source)
        return _assembled(saved, build_model(), build_head(), source=source)


def _builders(
    saved: Saved, head: type[PolicyHead] | None, *, source: Path | str
) -> tuple[Callable[[], WorldModel], Callable[[], Actor]]:
    """What makes the untrained parts of a policy."""
    config = ModelConfig.from_dict(saved.model, source=Path(source))
    # a policy needs none of the losses, which are code, and a file that names some is not to be trusted
    return partial(WorldModel, replace(config, losses=())), partial(build_actor, saved.actor, head, source=Path(source))


def _assembled(saved: Saved, model: WorldModel, actor: Actor, *, source: Path | str) -> Policy:
    robot = saved.interface
    return Policy(
        model,
        actor,
        task=saved.task,
        seed=saved.seed,
        sampler=saved.sampler,
        env=saved.env,
        interface=None if robot is None else RobotInterface.from_dict(robot, source=source),
    )


def _tensor(key: str, value: Any) -> Tensor:
    """A part of an observation."""
    try:
        return torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UserError(f"observation {key!r} is no array of numbers ({str(error)[:60]}); give one") from error


def config_of(actor: Actor) -> dict[str, Any]:
    """What `build_actor` builds an equal, untrained actor from: JSON values."""
    head = actor.base if isinstance(actor, ImprovedPolicy) else actor
    return {"head": identity(type(head))} | actor.config


def build_actor(
    config: Mapping[str, Any], head: type[PolicyHead] | None = None, *, source: Path | str = "the policy"
) -> Actor:
    """An untrained actor from its `config_of`. Nothing that it names is imported.

    Args:
        config: of a head, or with `trained_steps` of an improved one. Without a name of the head it is diffusion's.
        head: its class; by default the one that the config names.
        source: where the config comes from, for the error.

    Raises:
        UserError: the head is not imported, or is not built from this.
    """
    values = dict(config)
    cls = known_head(typed(values.pop("head", "diffusion"), str, source), head)
    trained = typed(values.pop("trained_steps", None), int | None, source)
    # options have ranges, without which a damaged number of blocks could be built for ever
    hints = get_type_hints(cls.__init__) | get_type_hints(cls.Options, include_extras=True)
    try:
        built = cls(**{name: typed(value, hints.get(name, Any), source, name=name) for name, value in values.items()})
    # what a size that cannot be raises is for torch to choose
    except (TypeError, ValueError, RuntimeError, ArithmeticError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"policy head {cls.__name__} cannot be built from what was saved: {reason}") from error
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
        name=pick(fresh.name, old.name),
        frame=pick(fresh.frame, old.frame),
        decided=pick(fresh.decided, old.decided),
    )
