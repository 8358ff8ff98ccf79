"""Whole dreams: the definition dreams what `agents.imagination` dreams, and the kernels, on the CPU, the same again."""

from __future__ import annotations

from typing import Any

import torch
from kernels_shim import load, needs_shim
from kernels_world import UNIMIX, World, generator, world
from torch import Tensor, nn

from agents.imagination import dream as dream_of_agents
from agents.policies.diffusion import DiffusionPolicy, TunedPolicy
from worldaction.kernels import ops
from worldaction.kernels.cuda.launch import Load
from worldaction.kernels.denoise.reference import undo_table, weights_of
from worldaction.kernels.dream.cuda import Dreams
from worldaction.kernels.dream.reference import Decider, Dreamed, SuccessWeights, dream
from worldaction.kernels.rollout.reference import prior_step
from worldaction.success import SuccessClassifier
from worldaction.world_model.latent import Latent, one_hot

__all__ = ["generator"]  # a fixture

SIZES = {"deter": 24, "hidden": 19, "groups": 3, "classes": 9, "action": 5}
B, H, K, N, W = 7, 3, 2, 3, 32
ROWS = torch.tensor([4, 0, 9, 2**33, 1, 77, 5])
Parts = tuple[World, TunedPolicy, SuccessClassifier, float]


class Model:
    """What dreams ask of a world model."""

    def __init__(self, made: World) -> None:
        self._weights = made.weights

    def feature(self, latent: Latent) -> Tensor:
        return torch.cat([latent.belief, one_hot(latent.code, SIZES["classes"])], -1)

    def prior(self, latent: Latent, action: Tensor, uniform: Tensor) -> Latent:
        return Latent(*prior_step(self._weights, *latent, action, uniform, unimix=UNIMIX))


def parts(generator: torch.Generator) -> Parts:
    """A world, a fine-tuned policy of which the last step is another network's, and a classifier with its median."""
    made = world(generator, batch=B, horizon=1, **SIZES)
    feature = SIZES["deter"] + SIZES["groups"] * SIZES["classes"]
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        base, tuned = (DiffusionPolicy(feature, SIZES["action"], chunk=K, denoising_steps=N, width=W) for _ in range(2))
        classifier = SuccessClassifier(feature, 21, 0.1).eval()
        nn.init.normal_(classifier.embedding[1].bias, std=0.1)
    for module in (base, tuned, classifier):
        module.requires_grad_(False)
        for parameter in module.parameters():
            parameter.mul_(2.0)
    # a threshold at which some dreams succeed and some do not
    likely = classifier.probability(Model(made).feature(Latent(made.belief, made.code)))
    return made, TunedPolicy(base, tuned, trained_steps=1), classifier, float(likely.median())


def flat(both: TunedPolicy, classifier: SuccessClassifier, *, min_std: float) -> tuple[list[Decider], SuccessWeights]:
    """The policy and the classifier as `dream` takes them."""
    deter, deciders = SIZES["deter"], []
    for policy, visited, last in ((both.base, [2, 1], 0), (both.tuned, [0], -1)):
        weight, bias = policy.denoiser.feature.weight, policy.denoiser.feature.bias
        table = undo_table(policy.schedule.alpha_bar, visited, eta=1.0, min_std=min_std, last=last)
        seen = (weight[:, :deter].contiguous(), weight[:, deter:].t().contiguous(), bias)
        deciders.append(Decider(weights_of(policy.denoiser, visited), table, *seen))
    linear, norm, _ = classifier.embedding
    head = classifier.head[1]
    seen = (linear.weight[:, :deter].contiguous(), linear.weight[:, deter:].t().contiguous(), linear.bias)
    return deciders, SuccessWeights(*seen, norm.weight, norm.bias, head.weight.flatten(), head.bias)


def options(threshold: float) -> dict[str, Any]:
    return {"decisions": H, "chunk": K, "binary": (-1,), "unimix": UNIMIX, "threshold": threshold}


def test_the_definition_dreams_what_the_agents_dream(generator: torch.Generator) -> None:
    made, both, classifier, threshold = parts(generator)
    starts = Latent(made.belief, made.code)
    expected = dream_of_agents(
        Model(made), both, classifier, starts, decisions=H, threshold=threshold, seed=3, rows=ROWS, min_std=0.1
    )
    deciders, success = flat(both, classifier, min_std=0.1)
    found = dream(made.weights, deciders, success, *starts, ROWS, seed=3, **options(threshold))
    alive = torch.cat([torch.ones(B, 1, dtype=torch.bool), (found.done_at == 0).cumprod(1).bool()[:, :-1]], 1)
    assert torch.equal(alive, expected.alive)
    assert torch.equal((found.done_at > 0) & alive, expected.success)
    assert torch.equal((found.done_at * alive).amax(1), expected.success_step.int())
    feature = torch.cat([found.beliefs, one_hot(found.codes, SIZES["classes"])], -1)[:, :-1]
    assert torch.allclose(feature[alive], expected.feature[alive], atol=1e-4)
    assert torch.allclose(found.states[:, :, -2:][alive], expected.stored["states"][alive], atol=1e-4)
    assert torch.allclose(found.means[:, :, -1:][alive], expected.stored["means"][alive], atol=1e-4)


def through_kernels(
    given: Parts, starts: Latent, rows: Tensor, dtype: torch.dtype, *, seed: int, load: Load = load
) -> Dreamed:
    made, both, classifier, threshold = given
    deciders, success = flat(both, classifier, min_std=0.1)
    shape = options(threshold) | {"batch": len(rows), "dtype": dtype, "room": (132, 232_448), "load": load}
    dreams = Dreams(made.weights, deciders, success, SIZES["groups"], **shape)
    for buffer in (dreams._beliefs, *dreams._states, *dreams._means, dreams._noise, dreams._uniforms):
        buffer.fill_(torch.nan)
    dreams(starts._replace(belief=starts.belief * 0.5).belief, starts.code, rows + 1, seed + 1)
    return dreams(*starts, rows, seed)


@needs_shim
def test_the_kernels_dream_the_same_in_float32(generator: torch.Generator) -> None:
    given = parts(generator)
    made, both, classifier, threshold = given
    starts = Latent(made.belief, made.code)
    expected = dream(made.weights, *flat(both, classifier, min_std=0.1), *starts, ROWS, seed=3, **options(threshold))
    found = through_kernels(given, starts, ROWS, torch.float32, seed=3)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.done_at, expected.done_at)
    for name in ("beliefs", "states", "means"):
        assert torch.allclose(getattr(found, name), getattr(expected, name), atol=1e-3), name


@needs_shim
def test_in_bfloat16_the_first_decision_is_near_and_a_split_changes_nothing(generator: torch.Generator) -> None:
    given = parts(generator)
    made, both, classifier, threshold = given
    starts = Latent(made.belief, made.code)
    expected = dream(made.weights, *flat(both, classifier, min_std=0.1), *starts, ROWS, seed=3, **options(threshold))
    found = through_kernels(given, starts, ROWS, torch.bfloat16, seed=3)
    # after the step that lands on the others' noise, before errors are multiplied by what follows
    assert (found.states[:, 0, -1] - expected.states[:, 0, -1]).abs().median() < 0.02
    for rows in (slice(0, 3), slice(3, 7)):
        some = through_kernels(given, starts.index(rows), ROWS[rows], torch.bfloat16, seed=3)
        for one, all_of_them in zip(some, found, strict=True):
            assert torch.equal(one, all_of_them[rows])


def test_the_op_is_the_definition_and_passes_opcheck(generator: torch.Generator) -> None:
    made, both, classifier, threshold = parts(generator)
    deciders, success = flat(both, classifier, min_std=0.1)
    given = (made.weights, deciders, success, made.belief, made.code, ROWS)
    expected = dream(*given, seed=3, **options(threshold))
    found = ops.dream(*given, seed=3, **options(threshold), force="reference")
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    tensors = (ops.flat(made.weights), ops.flat_deciders(deciders), list(success), made.belief, made.code, ROWS)
    numbers = (3, H, K, [-1], UNIMIX, threshold, torch.float32, "reference")
    # a random number has no gradient, but the schema and the shapes are the op's own
    torch.library.opcheck(
        torch.ops.worldaction.dream, (*tensors, *numbers), test_utils=("test_schema", "test_faketensor")
    )
