"""Latents of recorded episodes belong to their episode alone, and imagination takes over exactly where it is told."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from worldaction.latents import EpisodeLatents, embed_frames, encode, imagine_recorded
from worldaction.losses.tools.contract import noise_batch, tiny_model
from worldaction.metrics.open_loop import image_fidelity, open_loop
from worldaction.random import Stream, uniform
from worldaction.spec import ACTION, GRIPPER, IS_INIT, PREVIOUS_ACTION, ROBOT, STATIC
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import WorldModel

FRAMES = 60


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return tiny_model(["reconstruction"]).requires_grad_(False)


@pytest.fixture(scope="module")
def frames() -> TensorDict:
    """A store of 60 frames, as one long take."""
    batch = noise_batch(1, FRAMES, seed=5)
    batch[IS_INIT][:, 1:] = False
    batch[PREVIOUS_ACTION][:, 1:] = batch[ACTION][:, :-1]
    return batch[0]


def equal(a: Latent, b: Latent) -> bool:
    """Whether the codes agree, and the beliefs to rounding."""
    return torch.equal(a.code, b.code) and torch.allclose(a.belief, b.belief, atol=1e-5)


def pick(episodes: EpisodeLatents, which: int, length: int) -> Latent:
    """One episode without its padding, [R, T, ...]."""
    return Latent(*(part[:, which, :length] for part in episodes.latent))


def test_shapes_mask_and_frame_numbers(model: WorldModel, frames: TensorDict) -> None:
    found = encode(model, frames, [(10, 14), (0, 6), (50, 51)], resamples=2, seed=0)
    assert len(found) == 3
    assert found.latent.belief.shape == (2, 3, 6, model.config.deter)
    assert found.latent.code.shape == (2, 3, 6, model.config.groups)
    assert found.latent.code.dtype == torch.uint8
    assert found.mask.sum(-1).tolist() == [4, 6, 1]
    assert found.frame.tolist() == [[10, 11, 12, 13, 13, 13], [0, 1, 2, 3, 4, 5], [50] * 6]


def test_an_episode_is_filtered_as_a_policy_would_filter_it(model: WorldModel, frames: TensorDict) -> None:
    found = encode(model, frames, [(0, 5)], resamples=1, seed=3)
    rows = torch.zeros(1, dtype=torch.int64)
    seen = [model.embed({key: frames[key][t : t + 1] for key in (STATIC, GRIPPER, ROBOT)}) for t in range(5)]
    latent = model.start(seen[0], seed=3, rows=rows)
    assert equal(Latent(*(part[0, :, 0] for part in found.latent)), latent)
    for t in range(1, 5):
        draws = uniform(3, Stream.POSTERIOR, rows, t, model.config.groups)
        latent = model.posterior(latent, frames[ACTION][t - 1 : t], seen[t], draws)
        assert equal(Latent(*(part[0, :, t] for part in found.latent)), latent)


def test_an_episode_does_not_depend_on_the_others_nor_on_the_padding(model: WorldModel, frames: TensorDict) -> None:
    ranges = [(0, 6), (10, 25), (30, 33)]
    together = encode(model, frames, ranges, resamples=2, seed=1)
    for i, (start, stop) in enumerate(ranges):
        alone = encode(model, frames, [(start, stop)], resamples=2, seed=1)
        assert equal(pick(alone, 0, stop - start), pick(together, i, stop - start))
    backwards = encode(model, frames, ranges[::-1], resamples=2, seed=1)
    assert equal(pick(backwards, 0, 3), pick(together, 2, 3))


def test_more_resamples_keep_the_first_ones(model: WorldModel, frames: TensorDict) -> None:
    ranges = [(0, 6), (10, 16)]
    few, many = (encode(model, frames, ranges, resamples=n, seed=1) for n in (1, 3))
    assert equal(few.latent, Latent(*(part[:1] for part in many.latent)))


def test_resamples_and_seeds_are_independent_samples(model: WorldModel, frames: TensorDict) -> None:
    found = encode(model, frames, [(0, 6), (10, 16)], resamples=3, seed=1)
    code = found.latent.code
    assert not torch.equal(code[0], code[1])
    assert not torch.equal(code[1], code[2])
    assert not torch.equal(code, encode(model, frames, [(0, 6), (10, 16)], resamples=3, seed=2).latent.code)


def test_embedding_in_chunks_changes_nothing(model: WorldModel, frames: TensorDict) -> None:
    index = torch.tensor([5, 5, 0, 59, 30, 2, 1])
    whole = embed_frames(model, frames, index)
    assert torch.allclose(embed_frames(model, frames, index, chunk=2), whole, atol=1e-6)


def test_imagination_equals_the_filter_up_to_begin_and_is_the_prior_after_it(
    model: WorldModel, frames: TensorDict
) -> None:
    episodes = encode(model, frames, [(0, 8), (20, 26)], resamples=2, seed=0)
    begin = torch.tensor([[3, 0], [7, 5]])
    dream, later = imagine_recorded(model, frames, episodes, begin=begin, seed=4)
    assert dream.belief.shape == episodes.latent.belief.shape
    for r in range(2):
        for m in range(2):
            first = int(begin[r, m])
            assert torch.equal(dream.belief[r, m, : first + 1], episodes.latent.belief[r, m, : first + 1])
            assert torch.equal(dream.code[r, m, : first + 1], episodes.latent.code[r, m, : first + 1])
            length = int(episodes.mask[m].sum())
            assert later[r, m].nonzero().flatten().tolist() == list(range(first + 1, length))
            for t in range(first + 1, length):
                # the belief needs no random number: the prior of what was imagined, under the recorded action
                before = Latent(dream.belief[r, m, t - 1 : t], dream.code[r, m, t - 1 : t])
                action = frames[ACTION][episodes.frame[m, t - 1]][None]
                expected = model.prior(before, action, torch.full((1, model.config.groups), 0.5)).belief
                assert torch.allclose(dream.belief[r, m, t], expected[0], atol=1e-5)


def test_imagination_does_not_depend_on_the_other_episodes_and_never_looks(
    model: WorldModel, frames: TensorDict
) -> None:
    ranges = [(0, 8), (20, 26)]
    episodes = encode(model, frames, ranges, resamples=2, seed=0)
    dream, _ = imagine_recorded(model, frames, episodes, begin=torch.full((2, 2), 2), seed=4)
    alone = encode(model, frames, ranges[1:], resamples=2, seed=0)
    again, _ = imagine_recorded(model, frames, alone, begin=torch.full((2, 1), 2), seed=4)
    assert equal(Latent(*(part[:, 1, :6] for part in dream)), Latent(*(part[:, 0] for part in again)))

    blind = frames.clone()
    blind[STATIC][3:8] = 0
    unseen = encode(model, blind, ranges, resamples=2, seed=0)
    assert not torch.equal(unseen.latent.code[:, 0, 3:], episodes.latent.code[:, 0, 3:])
    dark, _ = imagine_recorded(model, blind, unseen, begin=torch.full((2, 2), 2), seed=4)
    assert equal(dark, dream)


def test_open_loop_sees_the_context_and_imagines_the_rest(model: WorldModel, frames: TensorDict) -> None:
    result = open_loop(model, frames, torch.tensor([0, 30]), context=4, horizon=6, seed=0)
    assert result.frames_after().tolist() == [list(range(4, 10)), list(range(34, 40))]
    assert result.imagined.belief.shape == (2, 10, model.config.deter)
    filtered = result.episodes.latent
    assert torch.equal(result.imagined.code[:, :4], filtered.code[0, :, :4])
    assert not torch.equal(result.imagined.code[:, 4:], filtered.code[0, :, 4:])
    scores = image_fidelity(model, frames, result)
    assert set(scores) == {"psnr", "ssim"}
    for camera in (STATIC, GRIPPER):
        assert scores["psnr"][camera].shape == scores["ssim"][camera].shape == (6,)
        assert 3.0 < scores["psnr"][camera].min() <= scores["psnr"][camera].max() < 20.0
        assert scores["ssim"][camera].abs().max() < 0.3  # noise is not to be guessed


def test_image_fidelity_is_perfect_for_a_perfect_model(
    model: WorldModel, frames: TensorDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = open_loop(model, frames, torch.tensor([0, 30]), context=4, horizon=6, seed=0)
    true = {camera: frames[camera][result.frames_after().flatten()] for camera in (STATIC, GRIPPER)}
    monkeypatch.setattr(model, "decode", lambda feature: true)
    scores = image_fidelity(model, frames, result)
    assert scores["psnr"][STATIC].tolist() == [100.0] * 6
    assert scores["ssim"][GRIPPER].tolist() == pytest.approx([1.0] * 6, abs=1e-4)
