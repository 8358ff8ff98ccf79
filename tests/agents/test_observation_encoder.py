"""What is seen without a world model: the present frame alone, in the scale of the data, by all policies' code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.observation_encoder import ObservationConfig, ObservationEncoder
from agents.policies.diffusion import DiffusionPolicy
from agents.policy import Policy
from worldaction.errors import UserError
from worldaction.spec import CALVIN, ROBOT, SCENE, STATIC, Layout
from worldaction.world_model.nets import proprio

PIXELS = ObservationConfig(CALVIN, cameras=(STATIC,), image_size=16, depth=4, patch=2, embed=8)


def frames(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        STATIC: torch.randint(256, (count, 16, 16, 3), generator=generator, dtype=torch.uint8),
        ROBOT: torch.randn(count, 15, generator=generator),
        SCENE: 3 * torch.randn(count, 24, generator=generator) + 1,
    }


def test_numbers_are_standardised_over_the_data_with_angles_as_rotations() -> None:
    seen = frames(400)
    encoder = ObservationEncoder(ObservationConfig(CALVIN, vectors=(ROBOT, SCENE)))
    encoder.standardise(seen)
    feature = encoder.embed(seen)
    assert feature.shape == (400, 18 + 24) == (400, encoder.feature_size)
    torch.testing.assert_close(feature.mean(0), torch.zeros(42), atol=1e-5, rtol=0)
    torch.testing.assert_close(feature.std(0, correction=0), torch.ones(42), atol=1e-4, rtol=0)
    # undone, they are the numbers themselves
    numbers = feature * encoder.proprio_std + encoder.proprio_mean
    torch.testing.assert_close(numbers, torch.cat([proprio(seen[ROBOT]), seen[SCENE]], -1), atol=1e-5, rtol=0)


def test_images_go_into_the_feature_and_the_cameras_alone_are_learned_from() -> None:
    encoder = ObservationEncoder(PIXELS)
    seen = frames(2)
    other = seen | {STATIC: 255 - seen[STATIC]}
    assert not encoder.embed(seen).equal(encoder.embed(other))
    # the numbers come last, untouched by the image
    assert encoder.embed(seen)[:, -18:].equal(encoder.embed(other)[:, -18:])
    assert encoder.embed(seen | {SCENE: seen[SCENE] + 1}).equal(encoder.embed(seen))


def test_leading_axes_are_kept() -> None:
    encoder, seen = ObservationEncoder(PIXELS), frames(6)
    shaped = {key: value.unflatten(0, (2, 3)) for key, value in seen.items()}
    torch.testing.assert_close(encoder.embed(shaped).flatten(0, 1), encoder.embed(seen))
    torch.testing.assert_close(
        encoder.embed({key: value[0] for key, value in seen.items()}), encoder.embed(seen)[0], atol=1e-5, rtol=1e-4
    )


def test_a_policy_on_a_sight_depends_on_the_present_frame_alone() -> None:
    torch.manual_seed(0)
    encoder = ObservationEncoder(ObservationConfig(CALVIN)).requires_grad_(False)
    actor = DiffusionPolicy(encoder.feature_size, 7, chunk=2, denoising_steps=3, width=8)
    policy = Policy(encoder, actor, task="open_drawer")  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    first, second, now = ({ROBOT: rng.standard_normal(15).astype(np.float32)} for _ in range(3))

    def third_decision(*before: dict[str, np.ndarray]) -> np.ndarray:
        state = None
        policy.reset(seed=0)
        for seen in (*before, now):
            action, state = policy.predict(seen, state)
        return action

    # a chunk of two: the third frame is decided on anew
    assert np.array_equal(third_decision(first, second), third_decision(second, first))
    third = third_decision(first, second)
    policy.reset(seed=0)
    assert not np.array_equal(third, policy.predict(first)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [({STATIC: None}, "no 'rgb_static'"), ({STATIC: torch.zeros(2, 8, 8, 3, dtype=torch.uint8)}, "give .* 16, 16")],
)
def test_what_cannot_be_seen_is_refused(change: dict[str, torch.Tensor | None], message: str) -> None:
    seen = {key: value for key, value in (frames(2) | change).items() if value is not None}
    with pytest.raises(UserError, match=message):
        ObservationEncoder(PIXELS).embed(seen)


def test_nothing_to_see_is_refused() -> None:
    blind = Layout((), 0, 0, 2, (0.0, 0.0))
    with pytest.raises(UserError, match="nothing is to be seen"):
        ObservationEncoder(ObservationConfig(blind, vectors=()))
