"""Dreams as environments: the same dream behind three interfaces, ended as the simulator ends an episode."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
import stable_baselines3.common.env_checker
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from tensordict import TensorDict
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.envs import check_env_specs

import envs
from agents.imagination import dream
from agents.policies.base import Decision
from envs.dream import DreamEnv, DreamGymEnv, Dreams, DreamVecEnv
from worldaction.errors import UserError
from worldaction.kernels.dream.reference import executed
from worldaction.success import SuccessClassifier
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import ModelConfig, WorldModel

HORIZON = 6


def tiny_model(losses: tuple[str, ...] = ()) -> WorldModel:
    torch.manual_seed(0)
    config = ModelConfig(
        cameras=("rgb_static",),
        image_size=16,
        deter=8,
        groups=2,
        classes=4,
        hidden=16,
        embed=8,
        depth=4,
        patch=2,
        unimix=0.01,
        burn_in=2,
        losses=losses,
    )
    return WorldModel(config).eval().requires_grad_(False)


def success_above(level: float) -> SuccessClassifier:
    """Success is a first belief above the level: layer norm over two units is the sign of their difference."""
    classifier = SuccessClassifier(MODEL.feature_size, 2, 0.0).eval().requires_grad_(False)
    linear, head = classifier.embedding[0], classifier.head[1]
    linear.weight.zero_()
    linear.weight[0, 0] = 1000.0
    linear.bias.copy_(torch.tensor([-1000.0 * level, 0.0]))
    head.weight.copy_(torch.tensor([[20.0, 0.0]]))
    head.bias.fill_(-5.0)
    return classifier


def some_starts(count: int) -> Latent:
    generator = torch.Generator().manual_seed(1)
    belief = 0.2 * torch.rand(count, 8, generator=generator) - 0.1
    return Latent(belief, torch.randint(4, (count, 2), generator=generator, dtype=torch.uint8))


def some_actions(*shape: int) -> Tensor:
    return 2 * torch.rand(*shape, 7, generator=torch.Generator().manual_seed(2)) - 1


MODEL = tiny_model()
STARTS = some_starts(5)
NEVER = success_above(2.0)
SOMETIMES = success_above(0.1)


def follow(env: DreamEnv, actions: Tensor) -> TensorDict:
    """[B, H], the dreams under given actions [B, H, A], not reset when they end."""
    frame, frames = env.reset(TensorDict({}, actions.shape[:1])), []
    for action in actions.unbind(1):
        stepped = env.step(frame.set("action", action))
        frames.append(stepped.clone())
        frame = stepped["next"].exclude("reward")
    return torch.stack(frames, 1)


def test_a_torchrl_rollout_is_the_world_models_imagination() -> None:
    actions = some_actions(7, HORIZON)
    rolled = follow(DreamEnv(MODEL, NEVER, STARTS, horizon=HORIZON, seed=3, first=11), actions)
    start = Latent(rolled["belief"][:, 0], rolled["code"][:, 0])
    imagined = MODEL.imagine(
        start, lambda _, step: executed(actions[:, step]), HORIZON, seed=3, rows=torch.arange(11, 18)
    )
    for key in (("belief",), ("next", "belief")):
        torch.testing.assert_close(rolled[key], imagined[key], atol=1e-6, rtol=0)
    for key in (("code",), ("next", "code")):
        assert rolled[key].dtype == torch.uint8
        assert torch.equal(rolled[key], imagined[key])
    after = Latent(imagined["next", "belief"], imagined["next", "code"])
    torch.testing.assert_close(rolled["next", "feature"], MODEL.feature(after), atol=1e-6, rtol=0)
    assert torch.equal(rolled["next", "dream_step"][..., 0], torch.arange(1, HORIZON + 1).expand(7, -1))


@pytest.mark.parametrize("batch_size", [(), (3,), (2, 3)])
@pytest.mark.parametrize("success", [NEVER, SOMETIMES])
def test_torchrl_finds_the_specs_kept_also_when_dreams_end(batch_size: tuple[int, ...], success: Any) -> None:
    env = DreamEnv(MODEL, success, STARTS, batch_size=batch_size, horizon=2)
    check_env_specs(env, break_when_any_done="both", seed=0)


def test_a_collector_fills_its_batches_with_new_dreams() -> None:
    env = DreamEnv(MODEL, SOMETIMES, STARTS, batch_size=[4], horizon=3)
    (batch,) = Collector(env, None, frames_per_batch=40, total_frames=40)
    assert batch.shape == (4, 10)
    ended, name = batch["next", "done"][..., 0], batch["dream"][..., 0]
    # a name changes exactly where a dream has ended, and none comes twice
    assert torch.equal(name[:, 1:] != name[:, :-1], ended[:, :-1])
    assert len(name.unique()) == 4 + int(ended[:, :-1].sum())


def test_a_partial_reset_leaves_the_other_dreams_alone() -> None:
    env = DreamEnv(MODEL, NEVER, STARTS, batch_size=[4])
    frame = env.step(env.rand_action(env.reset()))["next"]
    before = frame.clone()
    mask = torch.tensor([[False], [True], [False], [True]])
    after = env.reset(frame.set("_reset", mask), set_state=False)
    assert after["dream"].flatten().tolist() == [0, 4, 2, 5]
    assert after["dream_step"].flatten().tolist() == [1, 0, 1, 0]
    assert torch.equal(after["belief"][::2], before["belief"][::2])
    for row in (1, 3):
        assert (after["belief"][row] == STARTS.belief).all(-1).any()


def test_a_dream_can_be_dreamed_on_from_a_given_latent() -> None:
    env = DreamEnv(MODEL, NEVER, STARTS, horizon=HORIZON, seed=3)
    actions = some_actions(4, HORIZON)
    whole = follow(env, actions)
    state = whole[:, 2].select("belief", "code", "dream", "dream_step")
    resumed = env.reset(state, set_state=True)
    assert torch.equal(resumed["feature"], whole["feature"][:, 2])
    assert torch.equal(env.step(resumed.set("action", actions[:, 2]))["next", "belief"], whole["next", "belief"][:, 2])
    # latents alone: a new dream begins there
    fresh = env.reset(state.select("belief", "code"), set_state=True)
    assert torch.equal(fresh["belief"], whole["belief"][:, 2])
    assert not fresh["dream_step"].any()


def test_all_three_interfaces_dream_the_same_dreams() -> None:
    actions = some_actions(4, HORIZON)
    options: dict[str, Any] = {"horizon": HORIZON + 1, "seed": 5}
    rolled = follow(DreamEnv(MODEL, NEVER, STARTS, **options), actions)
    several = DreamVecEnv(MODEL, NEVER, STARTS, num_envs=4, **options)
    seen = [several.reset()] + [several.step(a.numpy())[0] for a in actions.unbind(1)]
    expected = torch.cat([rolled["feature"][:, :1], rolled["next", "feature"]], 1).numpy()
    np.testing.assert_allclose(np.stack(seen, 1), expected, atol=1e-6)
    single = DreamGymEnv(MODEL, NEVER, STARTS, **options)
    for row in range(4):
        seen = [single.reset()[0]] + [single.step(a.numpy())[0] for a in actions[row]]
        np.testing.assert_allclose(np.stack(seen), expected[row], atol=1e-6)


def test_dreams_do_not_depend_on_how_they_are_split_into_batches() -> None:
    actions = some_actions(6, HORIZON)
    whole = follow(DreamEnv(MODEL, NEVER, STARTS, seed=5), actions)
    for rows in (slice(0, 2), slice(2, 6)):
        part = follow(DreamEnv(MODEL, NEVER, STARTS, seed=5, first=rows.start), actions[rows])
        assert torch.equal(part["next", "code"], whole["next", "code"][rows])
        torch.testing.assert_close(part["next", "belief"], whole["next", "belief"][rows], atol=1e-6, rtol=0)


def test_equal_seeds_dream_alike_and_others_do_not() -> None:
    actions = some_actions(8, HORIZON)
    env = DreamEnv(MODEL, NEVER, STARTS, seed=1)
    first, later = follow(env, actions), follow(env, actions)
    env.set_seed(1)
    again = follow(env, actions)
    env.set_seed(2)
    other = follow(env, actions)
    assert (first == again).all()
    for different in (later, other):
        assert not torch.equal(first["next", "code"], different["next", "code"])


def test_seeding_a_batch_for_stable_baselines_repeats_its_dreams() -> None:
    env = DreamVecEnv(MODEL, NEVER, STARTS, num_envs=8)
    seen = []
    for seed in (3, 3, 4):
        env.seed(seed)
        env.reset()
        seen.append(env.step(some_actions(8).numpy())[0])
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


def test_dreams_start_evenly_from_all_the_given_starts() -> None:
    count = 5000
    belief = Dreams(MODEL, NEVER, STARTS, seed=4).begin(count).latent.belief
    which = (belief[:, None] == STARTS.belief).all(-1).int().argmax(-1)
    counts = torch.bincount(which, minlength=5)
    chi_square = float(((counts - count / 5) ** 2 / (count / 5)).sum())
    assert chi_square < 18.5  # 4 degrees of freedom, p = 0.001


def test_success_terminates_and_the_horizon_truncates() -> None:
    actions = some_actions(64, HORIZON)
    rolled = follow(DreamEnv(MODEL, SOMETIMES, STARTS, horizon=HORIZON), actions)["next"]
    above = rolled["belief"][..., :1] > 0.1
    at_horizon = torch.zeros_like(above)
    at_horizon[:, -1] = True
    # every case is there: both, one of them, neither
    assert (above & at_horizon).any()
    assert (above & ~at_horizon).any()
    assert (~above & at_horizon).any()
    assert torch.equal(rolled["terminated"], above)
    assert torch.equal(rolled["truncated"], at_horizon)
    assert torch.equal(rolled["done"], above | at_horizon)
    assert torch.equal(rolled["reward"], above.float())


def test_dreams_end_when_those_that_ppo_learns_from_do() -> None:
    """`agents.imagination` and the environments must agree about success, or their figures cannot be compared."""
    actions = some_actions(32, HORIZON)
    env = DreamEnv(MODEL, SOMETIMES, STARTS, horizon=HORIZON, seed=7)
    rolled = follow(env, actions)
    terminated = rolled["next", "terminated"][..., 0]
    expected = torch.where(terminated.any(1), terminated.int().argmax(1) + 1, 0)
    start = Latent(rolled["belief"][:, 0], rolled["code"][:, 0])
    night = dream(
        MODEL,
        reciting(executed(actions), terminated),
        SOMETIMES,
        start,
        decisions=HORIZON,
        threshold=0.9,
        seed=7,
        rows=torch.arange(32),
    )
    assert 0 < int((expected > 0).sum()) < 32
    assert torch.equal(night.success_step, expected)


def reciting(actions: Tensor, ended: Tensor) -> Any:
    """A policy for `agents.imagination` that gives the dreams that have not ended their actions [B, H, A]."""

    class Policy:
        chunk, noise_shape, decision = 1, (1, 1), 0

        def decide(self, feature: Tensor, noise: Tensor, *, min_std: float) -> Any:
            living = ~ended[:, : self.decision].any(1)
            chosen = actions[living, self.decision]
            self.decision += 1
            return Decision(chosen[:, None], {})

    return Policy()


def test_actions_are_carried_out_as_in_the_simulator() -> None:
    given = torch.tensor([[0.5, -2.0, 3.0, 0, 0, 0, 0.01], [0, 0, 0, 0, 0, 0, 0.0], [0, 0, 0, 0, 0, 0, -0.3]])
    expected = torch.tensor([[0.5, -1.0, 1.0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, -1], [0, 0, 0, 0, 0, 0, -1.0]])
    assert torch.equal(executed(given), expected)
    env = DreamGymEnv(MODEL, NEVER, STARTS)
    features = []
    for action in (given[0], expected[0]):
        env.reset(seed=0)
        features.append(env.step(action.numpy())[0])
    assert np.array_equal(*features)


def test_gymnasium_and_stable_baselines_accept_the_environment() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(
            envs.DREAM_ID, model=tiny_model(("reconstruction",)), success=SOMETIMES, starts=STARTS, threshold=0.5
        )
        check_env(env.unwrapped)
        stable_baselines3.common.env_checker.check_env(env.unwrapped)


def test_success_is_reported_on_every_reset_and_step() -> None:
    env = DreamGymEnv(MODEL, SOMETIMES, STARTS, horizon=HORIZON)
    _, info = env.reset(seed=0)
    assert info == {"success": False, "is_success": False}
    results = set()
    for action in some_actions(100):
        _, reward, terminated, truncated, info = env.step(action.numpy())
        assert info["success"] is info["is_success"] is terminated
        assert reward == float(terminated)
        results.add(terminated)
        if terminated or truncated:
            env.reset()
    assert results == {False, True}


def test_a_seed_or_an_option_names_the_start_of_a_single_dream() -> None:
    env = DreamGymEnv(MODEL, NEVER, STARTS)
    seeds = [env.reset(seed=n)[0] for n in range(20)]
    assert np.array_equal(env.reset(seed=7)[0], seeds[7])
    assert len(np.unique(seeds, axis=0)) == 5
    for n in range(5):
        observation, _ = env.reset(options={"start": n})
        assert np.array_equal(observation[:8], STARTS.belief[n].numpy())


def test_a_dream_that_ends_hands_over_to_the_next_in_the_same_step() -> None:
    count, steps = 8, 30
    env = DreamVecEnv(MODEL, SOMETIMES, STARTS, num_envs=count, horizon=HORIZON, seed=2)
    actions = some_actions(steps, count).numpy()
    last, names, kinds = env.reset(), list(range(count)), set()
    taken: list[list[np.ndarray]] = [[] for _ in range(count)]
    following = count
    for step in range(steps):
        observation, reward, done, infos = env.step(actions[step])
        for row in range(count):
            taken[row].append(actions[step, row])
            seen, won, over = alone(names[row], taken[row])
            info = infos[row]
            assert (bool(done[row]), bool(reward[row]), info["is_success"]) == (over, won, won)
            assert info["TimeLimit.truncated"] == (over and not won)
            assert ("terminal_observation" in info) == over
            np.testing.assert_allclose(info["terminal_observation"] if over else observation[row], seen, atol=1e-6)
            if over:
                kinds.add(won)
                names[row], taken[row], following = following, [], following + 1
                begins = (observation[row, :8] == STARTS.belief.numpy()).all(-1)
                assert begins.any()
        last = observation
    assert kinds == {False, True}
    assert last.dtype == np.float32


def alone(name: int, actions: Sequence[np.ndarray]) -> tuple[np.ndarray, bool, bool]:
    """What a dream shows after some actions if nothing runs beside it, whether it has succeeded and is over."""
    env = DreamGymEnv(MODEL, SOMETIMES, STARTS, horizon=HORIZON, seed=2, first=name)
    env.reset()
    for action in actions:
        seen, _, won, late, _ = env.step(action)
    return seen, won, won or late


def test_stable_baselines_learns_in_imagination() -> None:
    starts, horizon = some_starts(16), 10
    random = DreamEnv(MODEL, NEVER, starts, batch_size=[512], horizon=horizon)
    torch.manual_seed(0)
    # one random dream in five comes as far as this
    level = float(random.rollout(horizon)["next", "belief"][..., 0].amax(1).quantile(0.8))
    success = success_above(level)
    env = DreamVecEnv(MODEL, success, starts, num_envs=64, horizon=horizon, seed=1)
    agent = PPO(
        "MlpPolicy",
        env,
        n_steps=20,
        batch_size=320,
        n_epochs=6,
        learning_rate=3e-3,
        gamma=0.95,
        seed=1,
        device="cpu",
    )
    tests = DreamVecEnv(MODEL, success, starts, num_envs=256, horizon=horizon, seed=9)
    before = success_rate(agent, tests)
    agent.learn(64 * 20 * 10)
    assert before < 0.4
    assert success_rate(agent, tests) > 0.9
    # SB3 reports the successes that it finds in the infos
    assert np.mean(agent.ep_success_buffer) > 0.8


def success_rate(agent: PPO, env: DreamVecEnv) -> float:
    """Share of one batch of dreams that succeed."""
    env.seed(9)
    observation, won, over = env.reset(), np.zeros(env.num_envs, bool), np.zeros(env.num_envs, bool)
    while not over.all():
        observation, reward, done, _ = env.step(agent.predict(observation)[0])
        won |= ~over & (reward > 0)
        over |= done
    return float(won.mean())


def test_a_picture_is_what_the_decoder_draws() -> None:
    model = tiny_model(("reconstruction",))
    env = DreamGymEnv(model, NEVER, STARTS, render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    expected = model.decode(torch.from_numpy(observation)[None])["rgb_static"][0].numpy()
    picture = env.render()
    assert picture is not None
    assert picture.shape == (16, 16, 3)
    assert np.array_equal(picture, expected)
    several = DreamVecEnv(model, NEVER, STARTS, num_envs=4, render_mode="rgb_array")
    several.reset()
    tiled = several.render()
    assert tiled is not None
    assert tiled.shape == (32, 32, 3)
    assert np.array_equal(tiled[:16, :16], several.get_images()[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"horizon": 0}, "horizon 0"),
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**32}, f"seed {2**32}"),
        ({"first": -2}, "first -2"),
        ({"render_mode": "rgb_array"}, "decoder"),
        ({"render_mode": "human"}, "'human'"),
        ({"starts": Latent(torch.zeros(0, 8), torch.zeros(0, 2))}, r"\[0, 8\]"),
        ({"starts": Latent(torch.zeros(3, 9), torch.zeros(3, 2))}, r"\[3, 9\]"),
        ({"starts": Latent(torch.zeros(3, 8), torch.zeros(2, 2))}, r"\[2, 2\]"),
        ({"success": SuccessClassifier(12, 2, 0.1).eval()}, "size 12"),
        ({"success": SuccessClassifier(16, 2, 0.1)}, "training mode"),
    ],
)
def test_what_cannot_be_dreamed_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        DreamGymEnv(**({"model": MODEL, "success": NEVER, "starts": STARTS} | options))


def test_calls_that_make_no_sense_are_refused_by_name() -> None:
    single = DreamGymEnv(MODEL, NEVER, STARTS)
    several = DreamVecEnv(MODEL, NEVER, STARTS, num_envs=2)
    action = np.zeros(7, np.float32)
    for early in (lambda: single.step(action), lambda: several.step(np.stack([action] * 2))):
        with pytest.raises(UserError, match=r"reset\(\)"):
            early()
    single.reset()
    several.reset()
    with pytest.raises(UserError, match=r"\[1, 6\]"):
        single.step(action[:6])
    with pytest.raises(UserError, match="not finite"):
        single.step(action * np.nan)
    with pytest.raises(UserError, match=r"\[3, 7\]"):
        several.step(np.stack([action] * 3))
    single.reset(options={"lerobot_new_rollout": True})
    with pytest.raises(UserError, match="option 'strat'; did you mean 'start'"):
        single.reset(options={"strat": 1})
    with pytest.raises(UserError, match="start 5"):
        single.reset(options={"start": 5})
    with pytest.raises(UserError, match="env_fn"):
        several.env_method("env_fn")
    several.set_options({"start": 1})
    with pytest.raises(UserError, match="options"):
        several.reset()
