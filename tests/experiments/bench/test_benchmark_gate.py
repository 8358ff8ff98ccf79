"""What is wrong in any way is not timed; what is rounded is told apart from what is wrong."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from agents.imagination import dream
from experiments.bench import denoising, dreams, gate
from experiments.bench.base import DreamWorkload, Precision, Sizes, Windows, Workload
from experiments.bench.ours import Implementation, draws, model, start
from worldaction.errors import UserError
from worldaction.kernels import ops
from worldaction.kernels.categorical.reference import sample
from worldaction.kernels.denoise.reference import DenoiserWeights, denoise
from worldaction.kernels.dream.reference import Dreamed
from worldaction.kernels.rollout.reference import PriorWeights, prior_rollout

WORKLOAD = Workload(Sizes(deter=48, groups=8, classes=8, hidden=32), batch=192, horizon=12)
CPU = torch.device("cpu")
SEVENTH = torch.tensor([7])
Pair = tuple[Tensor, Tensor]
Rollout = Callable[[PriorWeights, Tensor, Tensor, Tensor, Tensor], Pair]


def _right(weights: PriorWeights, h: Tensor, z: Tensor, actions: Tensor, uniforms: Tensor) -> Pair:
    return prior_rollout(weights, h, z, actions, uniforms, unimix=WORKLOAD.sizes.unimix)


def _examined(roll: Rollout, precision: Precision = "fp32") -> gate.Verdict:
    with torch.no_grad():
        return gate.examine(Implementation("mine", precision, roll), WORKLOAD, CPU)


def _with_weights(change: Callable[[PriorWeights], PriorWeights]) -> Rollout:
    return lambda weights, h, z, actions, uniforms: _right(change(weights), h, z, actions, uniforms)


def _with_uniforms(change: Callable[[Tensor], Tensor]) -> Rollout:
    return lambda weights, h, z, actions, uniforms: _right(weights, h, z, actions, change(uniforms))


def _other_numbers(uniforms: Tensor) -> Tensor:
    return torch.rand(uniforms.shape, generator=torch.Generator().manual_seed(5)).clamp(1e-6, 1 - 1e-6)


def _no_unimix(weights: PriorWeights, h: Tensor, z: Tensor, actions: Tensor, uniforms: Tensor) -> Pair:
    return prior_rollout(weights, h, z, actions, uniforms, unimix=0.0)


def _afterwards(change: Callable[[Tensor, Tensor], Pair]) -> Rollout:
    return lambda *given: change(*_right(*given))


def _rounded(weights: PriorWeights) -> PriorWeights:
    rounded = {name: getattr(weights, name).bfloat16().float() for name in ("gates", "hidden", "logits", "action")}
    return weights._replace(**rounded)


WRONG: dict[str, Rollout] = {
    "a bias is left out": _with_weights(lambda w: w._replace(hidden_bias=torch.zeros_like(w.hidden_bias))),
    "a gain is doubled": _with_weights(lambda w: w._replace(gates_norm=(2 * w.gates_norm[0], w.gates_norm[1]))),
    "gates are in another order": _with_weights(lambda w: w._replace(gates=w.gates.roll(len(w.gates) // 3, 0))),
    "always the likeliest class": _with_uniforms(lambda u: torch.full_like(u, 0.5)),
    "random numbers of its own": _with_uniforms(_other_numbers),
    "without unimix": _no_unimix,
    "codes one step late": _afterwards(lambda beliefs, codes: (beliefs, codes.roll(1, 1))),
    "one row is not a number": _afterwards(lambda beliefs, codes: (beliefs.index_fill(0, SEVENTH, torch.nan), codes)),
}


def test_the_definition_passes_its_own_gate() -> None:
    assert _examined(_right).broken("fp32") == []


@pytest.mark.parametrize("roll", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_rollout_is_refused(roll: Rollout) -> None:
    with pytest.raises(UserError, match="mine fp32 is not right") as refusal:
        gate.require(Implementation("mine", "fp32", roll), _examined(roll))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", [name for name in WRONG if name != "without unimix"])
def test_most_of_what_is_wrong_is_refused_in_low_precision_too(name: str) -> None:
    assert _examined(WRONG[name], "bf16").broken("bf16") != []


def test_rounded_weights_pass_as_bf16_and_not_as_fp32() -> None:
    verdict = _examined(_with_weights(_rounded), "bf16")
    assert verdict.broken("bf16") == []
    assert any("belief" in words for words in verdict.broken("fp32"))


def test_frequencies_do_not_mind_whose_random_numbers_they_are_and_margins_do() -> None:
    verdict = _examined(WRONG["random numbers of its own"])
    assert abs(verdict.chi_square) < 4
    assert verdict.margin > 0.5


def test_frequencies_alone_tell_a_sampler_that_is_a_little_biased() -> None:
    """A tenth of the last class's draws is missing."""
    biased = _with_uniforms(lambda uniforms: 0.9 * uniforms)
    assert _examined(biased).chi_square > gate.LIMITS["bf16"].chi_square


def test_bf16_training_is_the_same_work() -> None:
    windows = Windows(WORKLOAD.sizes, batch=2, length=3, depth=4)
    assert gate.same_training(windows, CPU) < 0.01


def test_the_second_writing_of_the_prior_is_the_first() -> None:
    """The gate's own lines from belief to probabilities give the classes that the definition draws."""
    weights = model(WORKLOAD.sizes, CPU).prior_weights()
    first, uniforms = start(WORKLOAD, CPU), draws(WORKLOAD, CPU, seed=3)
    with torch.no_grad():
        beliefs, codes = _right(weights, *first, uniforms)
        priors = gate._prior(weights, beliefs.flatten(0, 1), WORKLOAD)
    assert torch.equal(sample(priors, uniforms.flatten(0, 1)), codes.flatten(0, 1))
    assert torch.allclose(priors.sum(-1), torch.ones(()))


DREAMS = DreamWorkload(WORKLOAD.sizes, batch=5, denoising_steps=4, width=24)


def test_the_definition_of_denoising_passes_its_own_gate() -> None:
    with torch.no_grad():
        assert denoising.examine(Implementation("mine", "fp32", denoise), DREAMS, CPU) < 1e-5


@pytest.mark.parametrize("field", ["noisy", "steps", "biases", "out"])
def test_a_wrong_denoising_loop_is_refused(field: str) -> None:
    def loop(weights: DenoiserWeights, c: Tensor, x: Tensor, noise: Tensor, table: Tensor) -> Pair:
        return denoise(weights._replace(**{field: 1.2 * getattr(weights, field)}), c, x, noise, table)

    with torch.no_grad(), pytest.raises(UserError, match="denoising by mine fp32 is not right"):
        denoising.examine(Implementation("mine", "fp32", loop), DREAMS, CPU)


def test_an_error_in_the_last_step_alone_is_found() -> None:
    def loop(weights: DenoiserWeights, c: Tensor, x: Tensor, noise: Tensor, table: Tensor) -> Pair:
        states, means = denoise(weights, c, x, noise, table)
        return states.index_add(1, torch.tensor([4]), torch.full((5, 1, 28), 0.1)), means

    with torch.no_grad(), pytest.raises(UserError, match=r"error 0\.1"):
        denoising.examine(Implementation("mine", "fp32", loop), DREAMS, CPU)


def _dreamed(change: Callable[[Dreamed], Dreamed]) -> Callable[..., Dreamed]:
    return lambda *given, **options: change(ops.dream(*given, **options, force="reference"))


def _examined_dreams(change: Callable[[Dreamed], Dreamed]) -> dict[str, float]:
    with torch.no_grad():
        return dreams.examine(Implementation("mine", "fp32", _dreamed(change)), DREAMS, CPU)


def test_the_definition_of_dreams_passes_its_own_gate() -> None:
    assert _examined_dreams(lambda dreamed: dreamed)["denoising"] < 1e-5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d._replace(beliefs=d.beliefs * 1.01), "belief"),
        (lambda d: d._replace(codes=d.codes.roll(1, 1)), "margin"),
        (lambda d: d._replace(states=d.states.roll(1, 0)), "denoising"),
        (lambda d: d._replace(states=d.states.index_fill(2, torch.tensor([2]), torch.nan)), "denoising nan"),
    ],
)
def test_wrong_dreams_are_refused(change: Callable[[Dreamed], Dreamed], words: str) -> None:
    with pytest.raises(UserError, match=f"dreams by mine fp32 are not right: .*{words}"):
        _examined_dreams(change)


def test_the_op_and_the_agents_dream_the_same() -> None:
    given, options = dreams.given_of(DREAMS, dreams.build_models(DREAMS, CPU))
    models = dreams.build_models(DREAMS, CPU)
    with torch.no_grad():
        one = ops.dream(*given, **options, force="reference")
        other = dream(
            models.world,
            models.policy,
            models.success,
            models.starts,
            rows=models.rows,
            decisions=DREAMS.decisions,
            threshold=dreams.NEVER,
            seed=DREAMS.seed,
            min_std=dreams.MIN_STD,
        )
    torch.testing.assert_close(one.beliefs[:, :-1], other.feature[..., : DREAMS.sizes.deter], atol=1e-5, rtol=1e-5)
