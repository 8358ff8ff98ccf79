"""The law of a robot's motion: recovered from its data, and what it does not foresee."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from worldaction.errors import UserError
from worldaction.play.layout import Episode
from worldaction.world_model.pose import Pose, ServoLaw, fit_law, gaps

LENGTH, COUNT = 80, 12
EPISODES = [Episode(start=number * LENGTH, length=LENGTH) for number in range(COUNT)]


def drive(law: ServoLaw, *, seed: int, wall: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """x [N, P], actions [N, A] and gaps [N, P] of a robot that keeps to a law; its first number stops at a wall."""
    generator = torch.Generator().manual_seed(seed)
    size, actions = law.moved.shape
    found: dict[str, list[Tensor]] = {"x": [], "action": [], "gap": []}
    for _ in EPISODES:
        x, gap = torch.randn(size, generator=generator), torch.zeros(size)
        for _ in range(LENGTH):
            action = torch.rand(actions, generator=generator) * 2 - 1
            for name, value in (("x", x), ("action", action), ("gap", gap)):
                found[name].append(value)
            ahead = law.ahead(x, gap, action)
            after = law.follow(x, ahead)
            if wall is not None:
                after[0] = after[0].clamp(max=wall)
            x, gap = after, law.left(ahead, after - law.follow(x, ahead))
    x, action, gap = (torch.stack(found[name]) for name in ("x", "action", "gap"))
    return x, action, gap


def robot(share: float, absolute: float, moved: list[list[float]]) -> ServoLaw:
    size = len(moved)
    numbers = (torch.full((size,), value) for value in (share, absolute, -1.0, 0.0))
    return ServoLaw(*numbers, torch.tensor(moved))


ROBOTS = {
    "servos that lag behind a target which commands move": robot(0.4, 0.0, [[0.2, 0.0], [0.0, 0.1], [0.1, -0.1]]),
    "commands that are the target": robot(0.5, 1.0, [[1.0, 0.0], [0.0, 0.8]]),
    "recorded differences of poses": robot(1.0, 0.0, [[0.1, 0.0], [0.0, 0.1]]),
}


@cache
def fitted(name: str) -> ServoLaw:
    """The law of a robot from its data; a fit takes seconds."""
    return fit_law(*drive(ROBOTS[name], seed=0)[:2], EPISODES, seed=0)


@pytest.mark.parametrize("name", list(ROBOTS))
def test_a_fitted_law_foretells_a_robot_that_it_has_not_seen_to_a_hundredth_of_its_way(name: str) -> None:
    truth = ROBOTS[name]
    law = fitted(name)
    x, action, gap = drive(truth, seed=1)
    start = torch.tensor([episode.start for episode in EPISODES])
    now, left = x[start], gap[start]
    for step in range(40):
        now, left = law.coast(now, left, action[start + step])
    moved = (x[start + 40] - x[start]).abs().mean()
    assert (now - x[start + 40]).abs().mean() < 0.02 * moved


def test_numbers_of_a_law_are_found_again() -> None:
    name = "servos that lag behind a target which commands move"
    truth, law = ROBOTS[name], fitted(name)
    assert torch.allclose(law.share, truth.share, atol=0.03)
    assert torch.allclose(law.moved, truth.moved, atol=0.01)
    assert bool((law.absolute < 0.02).all())


def test_the_fit_is_the_same_again_and_leaves_the_random_numbers_of_the_training_alone() -> None:
    name = "commands that are the target"
    one, (x, action, _) = fitted(name), drive(ROBOTS[name], seed=0)
    torch.manual_seed(5)
    other = fit_law(x, action, EPISODES, seed=0)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_gaps_of_recorded_episodes_are_those_of_the_robot_whatever_the_order_and_length_of_the_episodes() -> None:
    truth = ROBOTS["servos that lag behind a target which commands move"]
    x, action, gap = drive(truth, seed=2, wall=0.5)
    assert torch.allclose(gaps(truth, x, action, EPISODES), gap, atol=1e-4)
    cut = [Episode(start=0, length=5), *EPISODES[1:]]
    found = gaps(truth, x, action, cut[::-1])
    assert torch.allclose(found[:5], gap[:5], atol=1e-4)
    assert torch.allclose(found[LENGTH:], gap[LENGTH:], atol=1e-4)
    assert bool((found[5:LENGTH] == 0).all())


def test_an_untrained_network_expects_nothing_and_a_trained_one_can_block_the_way_or_double_it() -> None:
    truth = ROBOTS["servos that lag behind a target which commands move"]
    x, action, gap = drive(truth, seed=3, wall=0.0)
    pose = Pose(belief=4, proprio=3, action=2)
    pose.fit(x, action, EPISODES, seed=0)
    belief, now = torch.randn(len(x), 4), torch.cat([x, gap], -1)
    way = pose.law.coast(x, gap, action)[0] - x
    with torch.no_grad():
        assert torch.equal(pose.imagine(belief, now, action), torch.cat(pose.law.coast(x, gap, action), -1))
        for bias, share in ((-1e6, 0.0), (1e6, 2.0)):
            pose.besides[-1].bias.fill_(bias)
            assert torch.allclose(pose.imagine(belief, now, action)[:, :3] - x, share * way, atol=1e-5)


def test_the_network_learns_a_contact_that_the_belief_knows_of() -> None:
    truth = ROBOTS["servos that lag behind a target which commands move"]
    x, action, gap = drive(truth, seed=3)
    pose = Pose(belief=4, proprio=3, action=2)
    pose.fit(x, action, EPISODES, seed=0)
    # the first number of the belief says whether the robot's first number is held fast
    belief, now = torch.randn(len(x), 4), torch.cat([x, gap], -1)
    after = truth.coast(x, gap, action)[0]
    after[:, 0] = torch.where(belief[:, 0] > 0, x[:, 0], after[:, 0])
    optimiser, errors = torch.optim.Adam(pose.parameters(), lr=1e-2), []
    for _ in range(150):
        error = (pose.imagine(belief, now, action)[:, :3] - after).abs().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(error.item())
    assert errors[-1] < 0.3 * errors[0]


def test_a_mixed_training_leaves_the_law_its_precision() -> None:
    law = ROBOTS["servos that lag behind a target which commands move"]
    x, action, gap = drive(law, seed=6)
    exact = law.coast(x, gap, action)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = law.coast(x, gap, action)
    assert all(torch.equal(one, other) for one, other in zip(exact, mixed, strict=True))


def test_the_robot_is_where_it_is_seen() -> None:
    truth = ROBOTS["commands that are the target"]
    x, action, gap = drive(truth, seed=4)
    pose = Pose(belief=4, proprio=2, action=2)
    pose.fit(x, action, EPISODES, seed=0)
    seen = torch.randn_like(x)
    after = pose.observe(torch.cat([x, gap], -1), action, seen)
    assert torch.equal(after[:, :2], seen)


@pytest.mark.parametrize("length", [3, 5])
def test_play_too_short_for_a_law_is_refused_with_the_way_out(length: int) -> None:
    x, action, _ = drive(ROBOTS["commands that are the target"], seed=0)
    with pytest.raises(UserError, match=r"no episode .* --world-model.pose none"):
        fit_law(x, action, [Episode(start=0, length=length)], seed=0)


def test_short_episodes_will_do() -> None:
    truth = ROBOTS["recorded differences of poses"]
    x, action, _ = drive(truth, seed=0)
    law = fit_law(x, action, [Episode(start=e.start, length=12) for e in EPISODES], seed=0)
    assert torch.allclose(law.moved, truth.moved, atol=0.02)


def test_a_model_without_proprioception_carries_no_pose() -> None:
    with pytest.raises(UserError, match=r"no robot_obs.* --world-model.pose none"):
        Pose(belief=4, proprio=0, action=2)
