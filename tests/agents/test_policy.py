"""The policy as users call it: three conventions, one behaviour, and nothing that depends on the batch."""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from agents.policies.base import SAMPLERS, PolicyHead, Sampler
from agents.policies.beso import BesoPolicy
from agents.policies.diffusion import DiffusionPolicy, TunedPolicy
from agents.policies.flow import FlowPolicy
from agents.policies.gaussian import GaussianPolicy
from agents.policy import FRESH_NAMES, Policy, PolicyState
from envs.benchmark import START_STATES
from worldaction.errors import UserError
from worldaction.interface import ActionScale, RobotInterface
from worldaction.io.atomic import load_tensors, save_tensors, write_json
from worldaction.losses.tools.contract import noise_batch, seeded, tiny_model
from worldaction.random import Stream, normal, uniform
from worldaction.spec import ACTION, ACTION_SIZE, GRIPPER, IS_INIT, ROBOT, STATIC

CHUNK = 3
FRAMES = 8
KEYS = (STATIC, GRIPPER, ROBOT)


def diffusion(feature: int, seed: int) -> DiffusionPolicy:
    with seeded(seed):
        policy = DiffusionPolicy(feature, ACTION_SIZE, chunk=CHUNK, denoising_steps=4, width=32)
        for parameter in policy.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return policy.requires_grad_(False)


def make(*, tuned: bool = False, seed: int = 0) -> Policy:
    model = tiny_model(["reconstruction"]).requires_grad_(False)
    actor: Any = diffusion(model.feature_size, 1)
    if tuned:
        actor = TunedPolicy(actor, diffusion(model.feature_size, 2), trained_steps=2)
    return Policy(model, actor, task="open_drawer", seed=seed)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return make()


def episodes(count: int) -> dict[str, np.ndarray]:
    """Observations [T, B, ...]."""
    batch = noise_batch(count, FRAMES, seed=4)
    return {key: batch[key].transpose(0, 1).numpy() for key in KEYS}


def frame(stream: dict[str, np.ndarray], t: int, rows: Any = slice(None)) -> dict[str, np.ndarray]:
    return {key: value[t, rows] for key, value in stream.items()}


def predictions(policy: Policy, stream: dict[str, np.ndarray], rows: Any = slice(None)) -> np.ndarray:
    """[T, B, A], or [T, A] of one row, with the noise of sequence 0."""
    policy.reset(seed=0)
    state, actions = None, []
    for t in range(FRAMES):
        action, state = policy.predict(frame(stream, t, rows), state)
        actions.append(action)
    return np.stack(actions)


# Behaviour ------------------------------------------------------------------------------------------------------------


def test_actions_are_actions(policy: Policy) -> None:
    actions = predictions(policy, episodes(3))
    assert actions.shape == (FRAMES, 3, ACTION_SIZE)
    assert actions.dtype == np.float32
    assert np.abs(actions).max() <= 1.0
    assert set(np.unique(actions[..., -1])) <= {-1.0, 1.0}
    assert len(np.unique(actions[..., 0])) > 3


def test_a_decision_is_made_every_chunk_and_played_back_frame_by_frame(policy: Policy) -> None:
    stream, state, decisions = episodes(2), None, []
    for t in range(FRAMES):
        action, state = policy.predict(frame(stream, t), state)
        assert isinstance(state, PolicyState)
        if t % CHUNK == 0:
            # the decision is a function of the latent that has just seen this frame, and of named noise
            steps, width = policy.actor.noise_shape
            noise = normal(0, Stream.POLICY, state.name, t, steps * width).view(2, steps, width)
            decisions.append(policy.actor.sample(policy.model.feature(state.latent), noise))
        assert torch.equal(state.chunk, decisions[-1])
        assert np.array_equal(action, decisions[-1][:, t % CHUNK].numpy())
        assert torch.equal(state.action, torch.from_numpy(action))
        assert state.age.tolist() == [t % CHUNK + 1] * 2


def test_the_world_model_takes_in_every_frame_between_decisions(policy: Policy) -> None:
    stream = episodes(1)
    blinked = {key: value.copy() for key, value in stream.items()}
    blinked[ROBOT][1] += 5.0
    seen, missed = predictions(policy, stream), predictions(policy, blinked)
    assert np.array_equal(seen[:CHUNK], missed[:CHUNK])
    assert not np.array_equal(seen[CHUNK:], missed[CHUNK:])


def test_the_filter_is_fed_the_action_that_was_executed(policy: Policy) -> None:
    stream = episodes(2)
    action, state = policy.predict(frame(stream, 0))
    for t in range(1, FRAMES):
        embed = policy.model.embed({key: torch.from_numpy(value) for key, value in frame(stream, t).items()})
        draws = uniform(0, Stream.POSTERIOR, state.name, t, policy.model.config.groups)
        expected = policy.model.posterior(state.latent, torch.from_numpy(action), embed, draws)
        action, state = policy.predict(frame(stream, t), state)
        assert torch.equal(state.latent.belief, expected.belief)
        assert torch.equal(state.latent.code, expected.code)


def test_calling_it_again_gives_the_same_and_another_seed_gives_another_episode(policy: Policy) -> None:
    stream = episodes(2)
    base = predictions(policy, stream)
    assert np.array_equal(base, predictions(policy, stream))
    assert np.array_equal(base, predictions(make(), stream))
    assert not np.array_equal(base, predictions(make(seed=1), stream))
    assert not np.array_equal(base, predictions(policy, stream, [1, 0])[:, [1, 0]])


def test_predict_leaves_the_state_it_was_given_alone(policy: Policy) -> None:
    stream = episodes(2)
    _, state = policy.predict(frame(stream, 0))
    before = {name: torch.as_tensor(value).clone() for name, value in vars(state).items() if name != "latent"}
    first, _ = policy.predict(frame(stream, 1), state)
    again, _ = policy.predict(frame(stream, 1), state)
    assert np.array_equal(first, again)
    for name, value in before.items():
        assert torch.equal(torch.as_tensor(getattr(state, name)), value), name


def test_results_do_not_depend_on_the_batch_split(policy: Policy) -> None:
    stream, names = episodes(5), torch.tensor([10, 3, 500, 4, 0])

    def play(rows: Tensor) -> Tensor:
        state, actions = None, []
        for t in range(FRAMES):
            seen = {key: torch.from_numpy(value)[rows] for key, value in frame(stream, t).items()}
            start = torch.full((len(rows),), t == 0)
            action, state = policy.act(seen, state, start=start, rows=names[rows])
            actions.append(action)
        return torch.stack(actions, 1)

    whole = play(torch.arange(5))
    for part in ([0, 1, 2], [3], [4, 1]):
        rows = torch.tensor(part)
        assert torch.allclose(play(rows), whole[rows], atol=1e-4)


# Noise ----------------------------------------------------------------------------------------------------------------


def begun(policy: Policy, count: int = 1) -> list[PolicyState]:
    """Episodes one after the other that all look the same."""
    seen = frame(episodes(1), 0, 0)
    return [policy.predict(seen)[1] for _ in range(count)]


def test_an_episode_that_looks_the_same_has_other_noise_in_its_decisions_and_in_its_filter() -> None:
    states = begun(make(), 30)
    assert len({tuple(state.chunk.flatten().tolist()) for state in states}) == 30
    # four groups of four classes: few of 256 codes come twice
    assert len({tuple(state.latent.code.flatten().tolist()) for state in states}) > 15


def test_a_sequence_that_is_begun_again_repeats_its_episodes() -> None:
    policy = make()
    firsts = []
    for seed in (7, 7, 8):
        policy.reset(seed=seed)
        firsts.append([state.chunk for state in begun(policy, 3)])
    assert all(torch.equal(a, b) for a, b in zip(firsts[0], firsts[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(firsts[0], firsts[2], strict=True))


def test_a_reset_without_a_seed_goes_on_with_the_sequence() -> None:
    policy, seen = make(), frame(episodes(1), 0, 0)
    actions = []
    for seed in (3, None, 3, None):
        policy.reset(seed=seed)
        actions.append(policy.select_action(seen))
    assert np.array_equal(actions[:2], actions[2:])
    assert not np.array_equal(actions[0], actions[1])


def test_a_loaded_policy_begins_the_sequence_of_its_seed(tmp_path: Path) -> None:
    policy = make(seed=7)
    policy.save_pretrained(tmp_path)
    first = [state.chunk for state in begun(policy, 3)]
    policy.reset(seed=7)
    for again in (policy, Policy.from_pretrained(tmp_path)):
        assert all(torch.equal(a, b.chunk) for a, b in zip(first, begun(again, 3), strict=True))


def test_a_row_that_starts_alone_has_new_noise_and_counts_from_zero(policy: Policy) -> None:
    stream, start = episodes(3), np.array([False, True, False])
    _, state = policy.predict(frame(stream, 0))
    before = state.name.tolist()
    for t in range(1, 5):
        _, state = policy.predict(frame(stream, t), state, start if t == 3 else None)
    assert state.name.tolist()[::2] == before[::2]
    assert state.name[1].item() not in before
    assert state.frame.tolist() == [5, 2, 5]
    # what its second frame is filtered with has the name and the frame of that episode
    _, then = policy.predict(frame(stream, 5), state)
    seen = {key: torch.from_numpy(value) for key, value in frame(stream, 5).items()}
    draws = uniform(0, Stream.POSTERIOR, state.name, torch.tensor([5, 2, 5]), policy.model.config.groups)
    expected = policy.model.posterior(state.latent, state.action, policy.model.embed(seen), draws)
    assert torch.equal(then.latent.code, expected.code)


def test_rows_of_a_batch_have_noise_of_their_own_and_names_that_no_evaluation_has() -> None:
    policy, seen = make(), {key: np.repeat(value[:, :1], 5, 1) for key, value in episodes(1).items()}
    _, state = policy.predict(frame(seen, 0))
    assert len(state.chunk.unique(dim=0)) == len(state.name.unique()) == 5
    assert all(name in FRESH_NAMES for name in state.name.tolist())
    assert FRESH_NAMES.start > START_STATES


def test_names_that_are_given_are_of_the_episodes_that_start(policy: Policy) -> None:
    seen = {key: torch.from_numpy(value) for key, value in frame(episodes(2), 0).items()}
    _, state = policy.act(seen, None, start=torch.ones(2, dtype=torch.bool), rows=torch.tensor([4, 5]))
    _, state = policy.act(seen, state, start=torch.tensor([False, True]), rows=torch.tensor([6, 7]))
    assert state.name.tolist() == [4, 7]
    assert state.frame.tolist() == [2, 1]


# Stable-Baselines3 ----------------------------------------------------------------------------------------------------


def test_one_observation_gives_one_action_and_equals_a_batch_of_one(policy: Policy) -> None:
    stream = episodes(1)
    single, batch = predictions(policy, stream, 0), predictions(policy, stream)
    assert single.shape == (FRAMES, ACTION_SIZE)
    assert np.array_equal(single, batch[:, 0])


def test_episode_start_forgets_the_rows_it_names_and_no_others(policy: Policy) -> None:
    stream = episodes(3)
    start = np.array([False, True, False])

    def play(first: int) -> tuple[np.ndarray, PolicyState]:
        """To frame 4, where row 1 starts anew, from a first frame that row 1 alone has seen otherwise."""
        seen, state, actions = {key: value.copy() for key, value in stream.items()}, None, []
        seen[STATIC][:4, 1] = first
        policy.reset(seed=0)
        for t in range(6):
            action, state = policy.predict(frame(seen, t), state, start if t == 4 else np.zeros(3, bool))
            actions.append(action)
        assert state is not None
        return np.stack(actions), state

    (a, left), (b, right) = play(0), play(255)
    assert not np.array_equal(a[:4, 1], b[:4, 1])
    assert np.array_equal(a[4:], b[4:])
    assert np.array_equal(a[:, [0, 2]], b[:, [0, 2]])
    assert torch.equal(left.latent.belief, right.latent.belief)
    assert left.age.tolist() == [3, 2, 3]  # decisions at frames 0 and 3, and at 4 where an episode began
    straight = predictions(policy, stream)
    assert np.array_equal(a[:, [0, 2]], straight[:6][:, [0, 2]])


def test_a_started_row_sees_its_first_frame_as_in_training(policy: Policy) -> None:
    stream = episodes(2)
    _, state = policy.predict(frame(stream, 0))
    _, state = policy.predict(frame(stream, 5), state, np.array([False, True]))
    seen = {key: torch.from_numpy(value) for key, value in frame(stream, 5).items()}
    fresh = policy.model.start(policy.model.embed(seen), seed=0, rows=state.name)
    assert torch.equal(state.latent.code[1], fresh.code[1])
    assert torch.equal(state.latent.belief[1], fresh.belief[1])
    assert not torch.equal(state.latent.belief[0], fresh.belief[0])


def test_without_a_state_every_episode_starts(policy: Policy) -> None:
    stream = episodes(2)
    policy.reset(seed=0)
    plain, _ = policy.predict(frame(stream, 0))
    policy.reset(seed=0)
    told, _ = policy.predict(frame(stream, 0), None, np.array([False, True]))
    assert np.array_equal(plain, told)


# LeRobot and TorchRL --------------------------------------------------------------------------------------------------


def test_select_action_follows_an_episode_until_reset(policy: Policy) -> None:
    stream = episodes(1)
    expected = predictions(policy, stream, 0)
    for _ in range(2):
        policy.reset(seed=0)
        for t in range(FRAMES):
            assert np.array_equal(policy.select_action(frame(stream, t, 0)), expected[t])


def test_a_tensordict_comes_back_with_its_actions(policy: Policy) -> None:
    stream = episodes(2)
    expected = predictions(policy, stream)
    policy.reset(seed=0)
    for t in range(FRAMES):
        values = {key: torch.from_numpy(value) for key, value in frame(stream, t).items()}
        values[IS_INIT] = torch.full((2, 1), t == 0)
        seen = TensorDict(values, [2])
        found = policy(seen)
        assert found is seen
        assert np.array_equal(found[ACTION].numpy(), expected[t])


def test_is_init_in_a_tensordict_starts_an_episode(policy: Policy) -> None:
    stream = episodes(2)
    policy.reset()
    for _ in range(2):
        values = {key: torch.from_numpy(value) for key, value in frame(stream, 0).items()}
        first = policy(TensorDict({**values, IS_INIT: torch.ones(2, 1, dtype=torch.bool)}, [2]))[ACTION]
        assert policy._session is not None
        assert policy._session.age.tolist() == [1, 1]
    assert first.shape == (2, ACTION_SIZE)


# Sampler --------------------------------------------------------------------------------------------------------------


def test_deterministic_actions_differ_from_sampled_ones() -> None:
    policy, stream = make(), episodes(2)
    sampled = predictions(policy, stream)
    policy.sampler = "deterministic"
    assert not np.array_equal(sampled, predictions(policy, stream))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_all_ways_of_calling_draw_by_the_sampler_of_the_policy(sampler: Sampler) -> None:
    policy, seen = make(), frame(episodes(1), 0, 0)
    policy.sampler = sampler
    policy.reset(seed=0)
    _, state = policy.predict(seen)
    noise = normal(0, Stream.POLICY, state.name, 0, int(np.prod(policy.actor.noise_shape)))
    feature = policy.model.feature(state.latent)
    shaped = noise.view(1, *policy.actor.noise_shape)
    chunk = policy.actor.sample(feature, shaped, deterministic=sampler == "deterministic")
    assert torch.equal(state.chunk, chunk)
    # what Stable-Baselines3 says of determinism does not change it
    for call in (policy.select_action, *(partial(policy.predict, deterministic=flag) for flag in (True, False))):
        policy.reset(seed=0)
        found: Any = call(seen)
        assert np.array_equal(found[0] if isinstance(found, tuple) else found, chunk[0, 0])
    policy.reset(seed=0)
    values = {key: torch.from_numpy(value)[None] for key, value in seen.items()}
    found = policy(TensorDict({**values, IS_INIT: torch.ones(1, 1, dtype=torch.bool)}, [1]))
    assert torch.equal(found[ACTION], chunk[:, 0])


def test_the_sampler_is_saved_and_policies_of_before_sample(tmp_path: Path) -> None:
    policy = Policy(make().model, make().actor, task="open_drawer", sampler="deterministic")
    policy.save_pretrained(tmp_path)
    assert Policy.from_pretrained(tmp_path).sampler == "deterministic"
    values = json.loads((tmp_path / "config.json").read_text())
    assert values.pop("sampler") == "deterministic"
    write_json(tmp_path / "config.json", values)
    assert Policy.from_pretrained(tmp_path).sampler == "stochastic"
    write_json(tmp_path / "config.json", values | {"sampler": "greedy"})
    with pytest.raises(UserError, match=r"sampler is 'greedy', not one of stochastic"):
        Policy.from_pretrained(tmp_path)


class Plain(GaussianPolicy):
    """A head with one sampler."""

    has_deterministic = False


@pytest.mark.parametrize("improved", [False, True])
def test_a_sampler_that_the_head_lacks_is_refused(improved: bool) -> None:
    model = tiny_model().requires_grad_(False)
    for kind, has in ((GaussianPolicy, True), (Plain, False)):
        head: Any = kind(model.feature_size, ACTION_SIZE, chunk=CHUNK, width=16)
        head = head.improvable() if improved else head
        assert head.has_deterministic == has
        if has:
            Policy(model, head, task="open_drawer", sampler="deterministic")
        else:
            with pytest.raises(UserError, match="'deterministic': this policy's head has but one sampler"):
                Policy(model, head, task="open_drawer", sampler="deterministic")


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_camera_is_named_in_every_convention(policy: Policy, key: str) -> None:
    seen = {k: v for k, v in frame(episodes(1), 0).items() if k != key}
    tensors = TensorDict({k: torch.from_numpy(v) for k, v in seen.items()}, [1])
    for call in (policy.predict, policy.select_action):
        with pytest.raises(UserError, match=f"no '{key}'"):
            call(seen)
    with pytest.raises(UserError, match=f"no '{key}'"):
        policy(tensors)


def test_pictures_that_cannot_be_fitted_are_refused(policy: Policy) -> None:
    seen = frame(episodes(1), 0, 0)
    for image in (seen[STATIC] * 2.0, seen[STATIC][..., 0], seen[STATIC][:15]):
        with pytest.raises(UserError, match=r"'rgb_static' .*give"):
            policy.predict(seen | {STATIC: image})
    tensors = TensorDict({k: torch.from_numpy(v)[None] for k, v in seen.items()}, [1])
    tensors[STATIC] = tensors[STATIC] / 255
    with pytest.raises(UserError, match=r"'rgb_static' .*uint8 \[1, 16, 16, 3\]"):
        policy(tensors.set(IS_INIT, torch.ones(1, 1, dtype=torch.bool)))


# A robot's names, pictures and units ----------------------------------------------------------------------------------


def first_action(policy: Policy, observation: Any) -> np.ndarray:
    policy.reset(seed=0)
    return policy.select_action(observation)


@pytest.mark.parametrize("batched", [False, True])
def test_a_robot_s_names_and_floats_give_the_same_action_as_ours(policy: Policy, batched: bool) -> None:
    seen = frame(episodes(2), 0, slice(None) if batched else 0)
    tensors = {key: torch.from_numpy(value) for key, value in seen.items()}
    theirs = {f"observation.images.{key}": tensors[key].movedim(-1, -3) / 255 for key in (STATIC, GRIPPER)}
    theirs["observation.state"] = tensors[ROBOT]
    assert np.array_equal(first_action(policy, theirs), first_action(policy, seen))
    large = {key: np.kron(seen[key], np.ones((3, 3, 1), np.uint8)) for key in (STATIC, GRIPPER)}
    assert np.array_equal(first_action(policy, seen | large), first_action(policy, seen))


def test_every_convention_gives_actions_in_the_robot_s_units(tmp_path: Path) -> None:
    low, high = np.full(ACTION_SIZE, -100.0), np.linspace(-100, 100, ACTION_SIZE)
    interface = RobotInterface(scale=ActionScale(tuple(low.tolist()), tuple(high.tolist())))
    plain, made = make(), make()
    scaled = Policy(made.model, made.actor, task="open_drawer", interface=interface)
    scaled.save_pretrained(tmp_path)
    stream = episodes(2)
    for policy in (scaled, Policy.from_pretrained(tmp_path)):
        assert policy.interface == interface
        expected = interface.to_robot(predictions(plain, stream))
        assert np.abs(expected).max() > 1
        # the world model goes on from what the policy decided, not from the robot's numbers
        assert np.array_equal(predictions(policy, stream), expected)
        policy.reset(seed=0)
        assert np.array_equal(policy.select_action(frame(stream, 0)), expected[0])
        policy.reset(seed=0)
        tensors = TensorDict({k: torch.from_numpy(v) for k, v in frame(stream, 0).items()}, [2])
        asked = policy(tensors.set(IS_INIT, torch.ones(2, 1, dtype=torch.bool)))
        assert np.array_equal(asked[ACTION].numpy(), expected[0])


def test_a_policy_of_before_speaks_as_it_did(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["interface"]
    write_json(tmp_path / "config.json", values)
    assert Policy.from_pretrained(tmp_path).interface == RobotInterface()


def test_rows_need_one_name_each(policy: Policy) -> None:
    for rows in (0, slice(0, 1)):
        seen = {key: torch.from_numpy(value) for key, value in frame(episodes(2), 0, rows).items()}
        with pytest.raises(UserError, match="2 names"):
            policy.act(seen, None, start=torch.ones(2, dtype=torch.bool), rows=torch.arange(2))


def test_a_state_of_another_batch_is_refused(policy: Policy) -> None:
    stream = episodes(3)
    _, state = policy.predict(frame(stream, 0))
    with pytest.raises(UserError, match="3 episodes"):
        policy.predict(frame(stream, 1, slice(0, 2)), state)


def test_a_seed_below_zero_is_refused(policy: Policy) -> None:
    for seed, shown in ((-1, "-1"), ("7", "'7'"), (1.5, "1.5")):
        with pytest.raises(UserError, match=f"seed {shown}: give a whole number from 0 on"):
            policy.reset(seed=seed)


# Disk -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tuned", [False, True])
def test_a_saved_policy_acts_identically(tuned: bool, tmp_path: Path) -> None:
    policy, stream = make(tuned=tuned, seed=7), episodes(2)
    policy.save_pretrained(tmp_path / "p")
    again = Policy.from_pretrained(str(tmp_path / "p"))
    assert (again.task, again.seed) == ("open_drawer", 7)
    assert isinstance(again.actor, TunedPolicy if tuned else DiffusionPolicy)
    for sampler in SAMPLERS:
        policy.sampler = again.sampler = sampler
        assert np.array_equal(predictions(again, stream), predictions(policy, stream))
    assert {path.name for path in (tmp_path / "p").iterdir()} == {"config.json", "model.safetensors"}
    assert not any(key.startswith("model.losses") for key in load_tensors(tmp_path / "p" / "model.safetensors"))


@pytest.mark.usefixtures("trap")
def test_loading_a_policy_imports_nothing_that_its_file_names(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path / "p")
    values = json.loads((tmp_path / "p" / "config.json").read_text())
    values["model"]["losses"] = ["evil:X"]
    write_json(tmp_path / "p" / "config.json", values)
    Policy.from_pretrained(tmp_path / "p")
    assert "evil" not in sys.modules


@pytest.mark.usefixtures("trap")
def test_a_head_that_only_the_file_names_is_not_imported(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path / "p")
    values = json.loads((tmp_path / "p" / "config.json").read_text())
    values["actor"]["head"] = "evil:X"
    write_json(tmp_path / "p" / "config.json", values)
    with pytest.raises(UserError, match="'evil:X' is not imported, and loading imports none; import it, or give head"):
        Policy.from_pretrained(tmp_path / "p")
    assert "evil" not in sys.modules
    again = Policy.from_pretrained(tmp_path / "p", head=DiffusionPolicy)
    assert np.array_equal(predictions(again, episodes(1)), predictions(make(), episodes(1)))


class Foreign(GaussianPolicy):
    """A head that is none of ours."""

    name = "foreign"


@pytest.mark.parametrize("kind", [GaussianPolicy, Foreign, FlowPolicy, BesoPolicy])
@pytest.mark.parametrize("improved", [False, True])
def test_heads_of_any_kind_are_saved_and_found_again_if_they_are_imported(
    kind: type[PolicyHead], improved: bool, tmp_path: Path
) -> None:
    model = tiny_model(["reconstruction"]).requires_grad_(False)
    with seeded(3):
        head: Any = kind(model.feature_size, ACTION_SIZE, chunk=CHUNK, width=16)
    if improved:
        head = head.improvable()
        for weight in head.tuned.parameters():
            torch.nn.init.normal_(weight)
    policy = Policy(model, head.requires_grad_(False), task="open_drawer")
    policy.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())["actor"]["head"]
    assert saved == (f"{__name__}:Foreign" if kind is Foreign else kind.name)
    again = Policy.from_pretrained(tmp_path)
    assert type(again.actor.base if improved else again.actor) is kind
    for sampler in SAMPLERS if head.has_deterministic else SAMPLERS[:1]:
        policy.sampler = again.sampler = sampler
        assert np.array_equal(predictions(again, episodes(2)), predictions(policy, episodes(2)))


def test_policies_of_before_heads_had_names_are_diffusion_policies(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["actor"].pop("head") == "diffusion"
    write_json(tmp_path / "config.json", values)
    assert isinstance(Policy.from_pretrained(tmp_path).actor, DiffusionPolicy)


def test_a_head_that_is_not_built_from_what_was_saved_is_refused(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="GaussianPolicy cannot be built from what was saved"):
        Policy.from_pretrained(tmp_path, head=GaussianPolicy)


def test_a_tuned_policy_is_not_the_cloned_one() -> None:
    stream = episodes(1)
    assert not np.array_equal(predictions(make(), stream), predictions(make(tuned=True), stream))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    weights = load_tensors(tmp_path / "model.safetensors")
    name = next(key for key in weights if key.startswith("actor."))
    for wrong in ({k: v for k, v in weights.items() if k != name}, weights | {name: torch.zeros(9, 9, 9)}):
        save_tensors(tmp_path / "model.safetensors", wrong)
        with pytest.raises(UserError, match=r"model\.safetensors"):
            Policy.from_pretrained(tmp_path)


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    tiny_model().save(tmp_path)
    with pytest.raises(UserError, match=r"config\.json"):
        Policy.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="nowhere"):
        Policy.from_pretrained(tmp_path / "nowhere")


def test_a_config_of_another_version_is_refused(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["model"]["deter"]
    write_json(tmp_path / "config.json", values)
    with pytest.raises(UserError, match="deter"):
        Policy.from_pretrained(tmp_path)


# ---- numbers that are none


BAD = (np.nan, np.inf, -np.inf, 1e300)


@pytest.mark.parametrize("number", BAD)
def test_numbers_that_are_none_are_refused_and_not_acted_upon(policy: Policy, number: float) -> None:
    stream = episodes(2)
    shown = frame(stream, 0)
    shown[ROBOT] = shown[ROBOT].astype(np.float64)
    shown[ROBOT][1, 4] = number
    with pytest.raises(UserError, match=r"robot_obs of an observation \(row 1\) holds NaN, an infinity"):
        policy.predict(shown)
    policy.reset()
    with pytest.raises(UserError, match=r"row 0"):
        policy.select_action({key: value[1] for key, value in shown.items()})


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("where", ["model.rssm", "actor."])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path: Path, tuned: bool, where: str) -> None:
    policy = make(tuned=tuned)
    name = next(k for k, v in policy.state_dict().items() if k.startswith(where) and v.is_floating_point())
    policy.state_dict()[name].view(-1)[0] = torch.nan
    policy.save_pretrained(tmp_path)
    part = name.removeprefix("model.").removeprefix("actor.")
    with pytest.raises(UserError, match=f"'{re.escape(part)}' holds NaN or infinity"):
        Policy.from_pretrained(tmp_path)


def test_a_policy_holds_still_where_it_is_asked_to(policy: Policy) -> None:
    stream = episodes(3)
    policy.unusable_frames = "hold"
    try:
        policy.reset(seed=0)
        first, state = policy.predict(frame(stream, 0))
        bad = frame(stream, 1)
        bad[ROBOT] = bad[ROBOT].copy()
        bad[ROBOT][1, 0] = np.nan
        held, after = policy.predict(bad, state)
        again, _ = policy.predict(frame(stream, 2), after)
        policy.reset(seed=0)
        _, state = policy.predict(frame(stream, 0))
        sound, after_sound = policy.predict(frame(stream, 1), state)
    finally:
        policy.unusable_frames = "refuse"
    # relative actions: no move, and the gripper as it was told last
    assert held[1, :6].tolist() == [0.0] * 6
    assert held[1, 6] == first[1, 6]
    assert np.array_equal(held[[0, 2]], sound[[0, 2]])
    assert torch.equal(after.frame, after_sound.frame)
    assert torch.equal(after.latent.belief[1], state.latent.belief[1])
    assert np.isfinite(again).all()


def test_what_was_never_seen_cannot_be_held(policy: Policy) -> None:
    shown = frame(episodes(2), 0)
    shown[ROBOT] = np.full_like(shown[ROBOT], np.nan)
    policy.unusable_frames = "hold"
    try:
        with pytest.raises(UserError, match="robot_obs of the first frame of an episode"):
            policy.predict(shown)
    finally:
        policy.unusable_frames = "refuse"


@pytest.mark.parametrize("value", ["x", None, [object()], [[1, 2], [3]]])
def test_what_is_no_array_of_numbers_is_refused(policy: Policy, value: Any) -> None:
    with pytest.raises(UserError, match="observation 'robot_obs' is no array of numbers"):
        policy.predict(frame(episodes(1), 0, 0) | {ROBOT: value})


@pytest.mark.parametrize("change", [{"seed": 1}, {"sampler": "deterministic"}, {"task": "close_drawer"}])
def test_a_config_that_changed_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    make().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | change))
    with pytest.raises(UserError, match=r"config\.json has changed since it was written"):
        Policy.from_pretrained(tmp_path)


def test_weights_of_another_policy_are_refused(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path / "one")
    other = make()
    torch.nn.init.normal_(next(other.actor.parameters()))
    other.save_pretrained(tmp_path / "other")
    (tmp_path / "other/model.safetensors").rename(tmp_path / "one/model.safetensors")
    with pytest.raises(UserError, match="holds other numbers than its config"):
        Policy.from_pretrained(tmp_path / "one")


@pytest.mark.parametrize(
    "change",
    [
        {"width": "x"}, {"width": 10**7}, {"chunk": -1}, {"denoising_steps": 0}, {"blocks": None}, {"blocks": 2**31},
        {"more": 1},
    ],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused_before_there_is_no_memory(tmp_path: Path, change: dict[str, Any]) -> None:
    make().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    write_json(tmp_path / "config.json", values | {"actor": values["actor"] | change})
    with pytest.raises(UserError):
        Policy.from_pretrained(tmp_path)
