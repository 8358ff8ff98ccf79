"""Kernels that are broken on purpose: the checks that the other tests make must notice every one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from kernels_shim import ShimError, ShimProgram, build, needs_shim
from kernels_world import UNIMIX, errors, world
from test_kernels_denoise import HOPPER, inputs, policy, worst
from test_kernels_dream import ROWS, flat, options, parts, through_kernels
from test_kernels_random import draw
from test_kernels_rollout import TILED
from test_kernels_scan import good_scan

from worldaction.kernels.cuda.launch import Load
from worldaction.kernels.cuda.source import Source, files
from worldaction.kernels.denoise.cuda import Denoise
from worldaction.kernels.denoise.reference import DenoiserWeights, denoise
from worldaction.kernels.dream.reference import dream
from worldaction.kernels.rollout.cuda import Rollout
from worldaction.kernels.rollout.persistent import plan
from worldaction.random import Stream, uniform
from worldaction.world_model.latent import Latent

pytestmark = needs_shim
SEEDS = ("1", "2", "3", "4")


@dataclass(frozen=True)
class Mutation:
    """The number-th occurrence of a text in a file becomes another."""

    file: str
    before: str
    after: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.file}: {self.before!r} #{self.number} -> {self.after!r}"

    def apply(self, texts: dict[str, str]) -> dict[str, str]:
        """The texts of a source with the mutation, if it has the file."""
        if f"{self.file}.cuh" not in texts:
            return texts
        parts = texts[f"{self.file}.cuh"].split(self.before)
        assert len(parts) > self.number + 1, f"nothing to mutate: {self}"
        left, right = self.before.join(parts[: self.number + 1]), self.before.join(parts[self.number + 1 :])
        return texts | {f"{self.file}.cuh": left + self.after + right}


def mutated(mutation: Mutation | None) -> Load:
    """A loader of programs with a mutation."""

    @cache
    def load(source: Source, device: torch.device) -> ShimProgram:
        texts = files(source.name)
        return build(source, mutation.apply(texts) if mutation else texts)

    return load


def good_rollout(load: Load, *, one_launch: bool) -> bool:
    """Whether a rollout of 20 rows meets the definition."""
    dtype, most = (torch.bfloat16, (1e-2, 0.02)) if one_launch else (torch.float32, (1e-5, 1e-5))
    made = world(torch.Generator().manual_seed(5), batch=20, horizon=4, **TILED)
    cut = plan(TILED, 20, blocks=4, shared=232_448) if one_launch else None
    shape = {"batch": 20, "horizon": 4, "groups": TILED["groups"]}
    rollout = Rollout(made.weights, **shape, unimix=UNIMIX, dtype=dtype, cut=cut, load=load)
    rollout._beliefs.fill_(torch.nan)
    worst_belief, outside = errors(made, *rollout(*made.inputs))
    return worst_belief < most[0] and outside < most[1]


def good_denoise(load: Load, dtype: torch.dtype) -> bool:
    """Whether eleven rows are denoised as the definition says."""
    generator = torch.Generator().manual_seed(5)
    weights, *rest = inputs(generator, policy(generator, width=64, blocks=1), 11)
    expected = denoise(DenoiserWeights(*(t.double() for t in weights)), *(t.double() for t in rest))
    found = Denoise(weights, 11, dtype=dtype, **HOPPER, load=load)(*rest)
    return worst(found, expected) < (1e-5 if dtype == torch.float32 else 6e-3)


def good_random(load: Load) -> bool:
    """Whether uniform numbers are the library's."""
    rows = torch.arange(6)
    found = draw("uniforms", (3, Stream.PRIOR, 2), rows, 1, 7, load=load)
    return torch.equal(found[:, 0], uniform(3, Stream.PRIOR, rows, 2, 7))


def good_dream(load: Load) -> bool:
    """Whether dreams are the definition's."""
    given = parts(torch.Generator().manual_seed(5))
    made, both, classifier, threshold = given
    starts = Latent(made.belief, made.code)
    networks = flat(both, classifier, min_std=0.1)
    expected = dream(made.weights, *networks, *starts, ROWS, seed=3, **options(threshold))
    found = through_kernels(given, starts, ROWS, torch.float32, seed=3, load=load)
    return torch.equal(found.codes, expected.codes) and torch.equal(found.done_at, expected.done_at)


CHECKS: dict[str, Callable[[Load], bool]] = {
    "steps": lambda load: good_rollout(load, one_launch=False),
    "persistent": lambda load: good_rollout(load, one_launch=True),
    "denoise": lambda load: good_denoise(load, torch.bfloat16),
    "denoise_exact": lambda load: good_denoise(load, torch.float32),
    "random": good_random,
    "dream": good_dream,
    "scan": lambda load: good_scan(load, blind=True, seed=5) < 2e-5,
}


def survives(check: str, mutation: Mutation | None, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a check passes whatever the order of threads."""
    load = mutated(mutation)
    for seed in SEEDS:
        monkeypatch.setenv("WA_SHIM_SEED", seed)
        try:
            if not CHECKS[check](load):
                return False
        except ShimError:
            return False
    return True


FEW = [
    ("persistent", Mutation("persistent", "group_barrier(counter, passed += NC);", "", 2)),
    ("persistent", Mutation("persistent", "c * US + 8 * tiles[j]", "c * US + 4 * tiles[j]")),
    ("steps", Mutation("common", "/ N + NORM_EPS", "/ (N - 1) + NORM_EPS")),
    ("denoise", Mutation("denoise", "__syncthreads();", "", 2)),
    ("random", Mutation("common", "round < 10", "round < 9")),
]
MANY = [
    *[("persistent", Mutation("persistent", "group_barrier(counter, passed += NC);", "", k)) for k in (0, 1, 3, 4)],
    *[("persistent", Mutation("persistent", "__syncthreads();", "", k)) for k in range(5)],
    ("persistent", Mutation("common", "__syncthreads();", "", 2)),
    ("persistent", Mutation("common", "__syncthreads();", "", 3)),
    ("persistent", Mutation("common", "while (load_acquire(counter) < target)", "while (false)")),
    ("persistent", Mutation("persistent", "hidden_sums + c * 2", "gate_sums + c * 2")),
    ("persistent", Mutation("persistent", "step - 1) * S", "step) * S")),
    ("persistent", Mutation("persistent", "s / n, variance", "s / (n + 8), variance")),
    ("persistent", Mutation("persistent", "sm.h[m][j] = h;", "", 1)),
    ("steps", Mutation("common", "__syncthreads();", "", 0)),
    ("steps", Mutation("common", "__syncthreads();", "", 1)),
    ("steps", Mutation("steps", "__syncthreads();", "")),
    ("steps", Mutation("steps", "- 1.0f", "- 0.9f")),
    ("steps", Mutation("steps", "s * WA_C + code[s]", "s * WA_C + code[0]")),
    ("steps", Mutation("categorical", "unimix / C", "0.0f")),
    ("steps", Mutation("categorical", "u * total >=", "u * total + 0.01f >=")),
    ("steps", Mutation("categorical", "float reached = below;", "float reached = 0.0f;")),
    *[("denoise", Mutation("denoise", "__syncthreads();", "", k)) for k in (0, 1, 3, 4, 5)],
    ("denoise", Mutation("denoise", "for (int k = 0; k < WARPS; ++k)", "for (int k = 1; k < WARPS; ++k)")),
    ("denoise", Mutation("denoise", "biases[(2 * block + 1) * W + f]", "biases[2 * block * W + f]")),
    ("denoise", Mutation("denoise_table", "t[1] * eps", "0.98f * t[1] * eps")),
    ("denoise", Mutation("denoise_table", "fmaxf(noise, -3.0f)", "fmaxf(noise, -1.0f)")),
    *[("denoise_exact", Mutation("denoise_exact", "__syncthreads();", "", k)) for k in range(5)],
    ("denoise_exact", Mutation("common", "n / (n + 2.0f)", "n / (n + 2.1f)")),
    ("dream", Mutation("dream", "s * WA_C + code[s]", "s * WA_C + code[0]")),
    ("dream", Mutation("dream", "done_at[row] == 0 && ", "")),
    ("dream", Mutation("dream", "i % size", "i % action")),
    ("scan", Mutation("scan", "__syncthreads();", "", 0)),
    ("scan", Mutation("scan", "__syncthreads();", "", 1)),
    ("scan", Mutation("scan", "- value[j] * along", "")),
    ("scan", Mutation("scan", "(v - along)", "v")),
    ("scan", Mutation("scan", "reset * (1.0f - reset)", "reset")),
    ("scan", Mutation("scan", "if (blind[row]) drawn = expected;", "")),
    ("scan", Mutation("scan", "const float h = k * belief", "const float h = belief")),
    ("random", Mutation("common", "step, 0u, seed", "step + 1, 0u, seed")),
]


@pytest.mark.parametrize("check", [check for check in CHECKS if check not in ("dream", "scan")])
def test_what_is_not_broken_passes_in_any_order(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert survives(check, None, monkeypatch)


@pytest.mark.parametrize(("check", "mutation"), FEW, ids=str)
def test_a_broken_kernel_is_noticed(check: str, mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not survives(check, mutation, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("check", "mutation"), MANY, ids=str)
def test_every_other_break_is_noticed_too(check: str, mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not survives(check, mutation, monkeypatch)
