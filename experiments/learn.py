"""What is done for each task and seed: latents --> success classifier, BC --> imagination --> PPO --> evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.clone import clone, demonstration_chunks
from agents.diffusion import DiffusionPolicy, TunedPolicy
from agents.imagination import dream
from agents.policy import Policy, build_actor
from agents.ppo import PPO, PPOOptions
from experiments.benchmarks import open_benchmark
from experiments.evaluate import Evaluation, evaluate, stack
from experiments.play import measured, open_play
from experiments.run import LOGGER, Run, device
from experiments.video import Rollout, rollout_video
from worldaction.artefact import load_checkpoint, load_tensors, read_json, save_checkpoint, save_tensors, write_json
from worldaction.config import to_dict
from worldaction.errors import UserError
from worldaction.latents import EpisodeLatents, encode, imagine_recorded
from worldaction.play.hidden import knows_actions
from worldaction.play.store import PlayStore, Segment
from worldaction.play.windows import WindowSampler
from worldaction.record import Recorder, progress
from worldaction.rssm import Latent
from worldaction.spec import ACTION, SCENE
from worldaction.success import SuccessClassifier, fit_success, precision_recall
from worldaction.world_model import WorldModel, restore

PLAY_WINDOWS, PLAY_LENGTH = 150, 48
"""Windows of play beside the attempts of the task, from which the classifier learns what else there is."""
CLASSIFIER_SAMPLES = 3
"""Posterior samples of every episode that the classifier sees."""


class TaskRun:
    """One task and seed of a run: what its stages share."""

    def __init__(self, folder: Path, seed: int, task: str) -> None:
        self.run, self.seed, self.task = Run.open(folder), seed, task
        self.study, self.device = self.run.study, device(self.run.study)
        self.prefix = f"seed{seed}/{task}"
        self.store = open_play(self.run)
        # images of another renderer would be foreign to the model; where this one is missing, the table says so
        drawn_by = self.store.meta.renderer if self.study.play is None else None
        self.benchmark = open_benchmark(self.study, renderer=drawn_by)
        self.model = WorldModel.load(self.run.world_model(seed).path, losses=()).to(self.device)

    @property
    def segments(self) -> list[Segment]:
        """Attempts to learn from. In recorded play, evaluations begin where the validation's do."""
        found = self.store.segments
        if self.study.play is None:
            return found
        return [s for s in found if self.store.episode_of(s.start).split == "training"]

    def label(self, frame: Tensor) -> Tensor:
        """Whether the task is done in frames [...] of the store."""
        scene = self.store.frames[SCENE][frame.flatten()].numpy()
        return torch.from_numpy(self.benchmark.label(self.task, scene)).view(frame.shape)

    def policy(self, actor: DiffusionPolicy | TunedPolicy) -> Policy:
        """An actor as it is used in the simulator."""
        return Policy(self.model, actor.to(self.device), task=self.task, seed=self.seed)


def learn_task(folder: Path, seed: int, task: str) -> None:
    """All stages of one task and seed."""
    here = TaskRun(folder, seed, task)
    with Recorder(folder, f"seed{seed}-{task}") as recorder:
        learn_success(here, recorder)
        clone_policy(here, recorder)
        finetune(here, recorder)
        compare(here)


# Success --------------------------------------------------------------------------------------------------------------


def learn_success(here: TaskRun, recorder: Recorder) -> None:
    """latents --> success classifier."""
    artefact = here.run.task(here.seed, here.task, "success")
    if artefact.complete:
        return
    options = here.study.success
    attempts = [(s.start, s.stop) for s in here.segments if s.task == here.task]
    generator = torch.Generator().manual_seed(here.seed)
    order = torch.randperm(len(attempts), generator=generator).tolist()
    apart = max(1, round(len(order) * options.held_out))
    parts = {"held_out": [attempts[i] for i in order[:apart]], "training": [attempts[i] for i in order[apart:]]}
    play = _play_windows(here)
    data = {name: _labelled(here, ranges + play[name], generator) for name, ranges in parts.items()}
    training = [data["training"][kind] for kind in ("real", "imagined")]
    recorder.rewind(f"{here.prefix}/success", 0)

    def report(step: int, figures: Mapping[str, float]) -> None:
        if step % 50 == 0:
            recorder.log(step, _without("success/", figures), prefix=f"{here.prefix}/success")

    classifier = fit_success(
        torch.cat([feature for feature, _ in training]),
        torch.cat([label for _, label in training]),
        hidden=options.hidden,
        dropout=options.dropout,
        steps=options.steps,
        batch=options.batch,
        lr=options.lr,
        contrastive=options.contrastive,
        seed=here.seed,
        report=report,
    )
    scores = {}
    for kind, (feature, label) in data["held_out"].items():
        with torch.no_grad():
            probability = classifier.probability(feature)
        scores[kind] = precision_recall(probability, label, options.threshold)._asdict()
    verdicts = _verdicts(here, classifier, parts["held_out"])
    save_tensors(artefact.folder / "classifier.safetensors", classifier.state_dict())
    artefact.finish(
        {"held_out": scores, "verdicts": verdicts, "threshold": options.threshold, "config": classifier.config}
    )


def _verdicts(here: TaskRun, classifier: SuccessClassifier, ranges: list[tuple[int, int]]) -> dict[str, Any]:
    """What dreams say of attempts whose end is known: imagined from the first frame on, under the recorded actions.

    Returns:
        how many of the attempts that "succeeded" and "failed" there were, and the share of each that dreams call a
        success (None without one): the second share is what a policy can exploit.
    """
    episodes = encode(here.model, here.store.frames, ranges, resamples=CLASSIFIER_SAMPLES, seed=here.seed)
    begin = torch.zeros(CLASSIFIER_SAMPLES, len(episodes), dtype=torch.int64)
    dreamed, later = imagine_recorded(here.model, here.store.frames, episodes, begin=begin, seed=here.seed)
    with torch.no_grad():
        called = classifier.probability(here.model.feature(dreamed)) >= here.study.success.threshold
    # [R, M] in each dream, and [M] in truth
    said = (called & later).any(-1).float().mean(0).cpu()
    true = (here.label(episodes.frame) & episodes.mask).any(-1)
    found = {"succeeded": true, "failed": ~true}
    counts: dict[str, Any] = {name: int(which.sum()) for name, which in found.items()}
    shares = {f"called_{name}": said[which].mean().item() if which.any() else None for name, which in found.items()}
    return counts | shares


def _without(stage: str, figures: Mapping[str, float]) -> dict[str, float]:
    """Figures without the stage's name, which the prefix says already."""
    return {key.removeprefix(stage): value for key, value in figures.items()}


def _play_windows(here: TaskRun) -> dict[str, list[tuple[int, int]]]:
    """Windows of play for training and for measuring."""
    found: dict[str, list[tuple[int, int]]] = {}
    for name, split, count in (("training", "training", PLAY_WINDOWS), ("held_out", "validation", PLAY_WINDOWS // 3)):
        play = [e for e in measured(here.store.episodes, split) if here.benchmark.shows(here.task, e.scene)]
        # imagination goes on under the recorded actions
        episodes = [e for e in play if knows_actions(here.store, e)]
        length = min(PLAY_LENGTH, max((e.length for e in episodes), default=0))
        if not episodes:
            found[name] = []
            continue
        index, _ = WindowSampler(episodes, length=length, seed=here.seed).sample(None, count * length)
        found[name] = [(int(start), int(start) + length) for start in index.view(count, length)[:, 0]]
    return found


def _labelled(
    here: TaskRun, ranges: list[tuple[int, int]], generator: torch.Generator
) -> dict[str, tuple[Tensor, Tensor]]:
    """Features and labels of episodes, filtered ("real") and imagined from a random frame on ("imagined")."""
    episodes = encode(here.model, here.store.frames, ranges, resamples=CLASSIFIER_SAMPLES, seed=here.seed)
    lengths = episodes.mask.sum(-1)
    share = torch.rand(CLASSIFIER_SAMPLES, len(episodes), generator=generator)
    begin = (share * (lengths - 8).clamp_min(1)).long()
    dreamed, later = imagine_recorded(here.model, here.store.frames, episodes, begin=begin, seed=here.seed)
    label = here.label(episodes.frame).to(here.device).expand(CLASSIFIER_SAMPLES, -1, -1)
    seen = episodes.mask.to(here.device).expand(CLASSIFIER_SAMPLES, -1, -1)
    return {
        "real": (here.model.feature(_pick(episodes.latent, seen)), label[seen]),
        "imagined": (here.model.feature(_pick(dreamed, later)), label[later]),
    }


def _pick(latent: Latent, mask: Tensor) -> Latent:
    return Latent(latent.belief[mask], latent.code[mask])


def load_classifier(here: TaskRun) -> SuccessClassifier:
    """The trained classifier."""
    artefact = here.run.task(here.seed, here.task, "success")
    classifier = SuccessClassifier(**artefact.results["config"])
    classifier.load_state_dict(load_tensors(artefact.path / "classifier.safetensors"))
    return classifier.to(here.device).eval().requires_grad_(False)


# BC -------------------------------------------------------------------------------------------------------------------


def clone_policy(here: TaskRun, recorder: Recorder) -> None:
    """latents --> BC."""
    artefact = here.run.task(here.seed, here.task, "clone")
    if artefact.complete:
        return
    options, sizes = here.study.clone, here.study.policy
    # what is recorded is play, and its annotated windows are the demonstrations
    recorded = here.study.play is not None
    demos = here.store.demonstrations(here.task, kind=None if recorded else "demo", split="training")
    demos = [d for d in demos if knows_actions(here.store, here.store.episode_of(d.start))]
    if not demos:
        raise UserError(f"there are no demonstrations of {here.task}; raise --data.demos, or record some")
    ranges = [(d.start, d.stop) for d in demos]
    episodes = encode(here.model, here.store.frames, ranges, resamples=options.resamples, seed=here.seed)
    features, chunks = demonstrations(here.model, here.store, episodes, chunk=sizes.chunk)
    recorder.rewind(f"{here.prefix}/clone", 0)

    def report(step: int, figures: Mapping[str, float]) -> None:
        bar.update(1)
        if step % 50 == 0:
            recorder.log(step, _without("clone/", figures), prefix=f"{here.prefix}/clone")

    with progress(options.steps, f"BC {here.task}, seed {here.seed}", "step") as bar:
        policy = clone(
            features,
            chunks,
            denoising_steps=sizes.denoising_steps,
            width=sizes.width,
            blocks=sizes.blocks,
            binary=here.store.meta.layout.binary,
            steps=options.steps,
            batch=options.batch,
            lr=options.lr,
            weight_decay=options.weight_decay,
            ema=options.ema,
            seed=here.seed,
            report=report,
        )
    save_actor(artefact.folder, policy)
    artefact.finish({"demonstrations": len(demos), "frames": chunks.shape[0]})


def demonstrations(
    model: WorldModel, store: PlayStore, episodes: EpisodeLatents, *, chunk: int
) -> tuple[Tensor, Tensor]:
    """Features [R, M, F] of all frames of the demonstrations, and the chunks [M, K, A] that follow them."""
    latent = _pick(Latent(*(p.movedim(0, 2) for p in episodes.latent)), episodes.mask.to(episodes.latent.belief.device))
    # [M, R, F] to [R, M, F]
    features = model.feature(latent).transpose(0, 1).contiguous()
    parts = []
    for frame, mask in zip(episodes.frame, episodes.mask, strict=True):
        actions = store.frames[ACTION][frame[mask]]
        parts.append(demonstration_chunks(actions, chunk, binary=store.meta.layout.binary))
    return features, torch.cat(parts).to(features.device)


def save_actor(folder: Path, actor: DiffusionPolicy | TunedPolicy) -> None:
    """Write an actor into a stage's folder."""
    save_tensors(folder / "actor.safetensors", actor.state_dict())
    write_json(folder / "actor.json", actor.config)


def load_actor(here: TaskRun, stage: str) -> DiffusionPolicy | TunedPolicy:
    """The frozen policy of a stage: "clone" or "ppo"."""
    folder = here.run.task(here.seed, here.task, stage).path
    actor = build_actor(read_json(folder / "actor.json"))
    restore(actor, load_tensors(folder / "actor.safetensors"), source=folder / "actor.safetensors")
    return actor.to(here.device).eval().requires_grad_(False)


# PPO ------------------------------------------------------------------------------------------------------------------


def dream_starts(here: TaskRun) -> Latent:
    """Latents of rendered start scenes, apart from those of the evaluation, [P]."""
    seen = here.benchmark.first_frames(here.task, here.study.ppo.starts)
    with torch.no_grad():
        embed = here.model.embed(stack(seen, here.model))
        return here.model.start(embed, seed=here.seed, rows=torch.arange(len(embed), device=here.device))


def ppo_options(here: TaskRun) -> PPOOptions:
    """The run's numbers in the form in which PPO takes them."""
    values = to_dict(here.study.ppo)
    for name in ("starts", "evaluate_every", "bf16"):
        values.pop(name)
    decisions = here.study.table.max_steps // here.study.policy.chunk
    return PPOOptions(**values, decisions=decisions, threshold=here.study.success.threshold)


def finetune(here: TaskRun, recorder: Recorder) -> None:
    """BC --> imagination --> PPO."""
    artefact = here.run.task(here.seed, here.task, "ppo")
    if artefact.complete:
        return
    options, classifier, starts = ppo_options(here), load_classifier(here), dream_starts(here)
    cloned = load_actor(here, "clone")
    assert isinstance(cloned, DiffusionPolicy)
    ppo = PPO(here.model, cloned, classifier, starts, options, seed=here.seed)
    calibration = {"bc": _imagined(here, ppo.policy, classifier, starts)}
    checkpoint = artefact.folder / "checkpoint.safetensors"
    curve: list[dict[str, Any]] = []
    if checkpoint.exists():
        saved = load_checkpoint(checkpoint)
        ppo.load_state_dict(saved.state)
        curve = saved.extra["curve"]
    recorder.rewind(here.prefix, ppo.iteration)
    # apart, for a point is measured before its iteration and kept only by that iteration's checkpoint
    recorder.rewind(f"{here.prefix}/real", curve[-1]["iteration"] if curve else -1)
    name = f"PPO {here.task}, seed {here.seed}"
    with progress(options.iterations, name, "iteration", initial=ppo.iteration) as bar:
        while not ppo.finished:
            _real_point(here, ppo, curve, recorder)
            with here.model.rssm.imagining_in(torch.bfloat16 if here.study.ppo.bf16 else torch.float32):
                metrics = ppo.iterate()
            recorder.log(ppo.iteration, metrics, prefix=here.prefix)
            bar.update(1, imagined=metrics["imagined/success"])
            save_checkpoint(checkpoint, ppo.state_dict(), extra={"curve": curve})
    calibration["ppo"] = _imagined(here, ppo.policy, classifier, starts)
    save_actor(artefact.folder, ppo.policy)
    artefact.finish(
        {
            "imagined": calibration,
            "iterations": ppo.iteration,
            "kept": ppo.kept,
            "stop_reason": ppo.stopped or "all iterations done",
            "curve": curve,
        }
    )
    checkpoint.unlink(missing_ok=True)


def _real_point(here: TaskRun, ppo: PPO, curve: list[dict[str, Any]], recorder: Recorder) -> None:
    """A point of the curve of real success, for the reader's eyes only: nothing is decided by it."""
    every, episodes = here.study.ppo.evaluate_every, here.study.evaluation.curve_episodes
    if not (every and episodes) or ppo.iteration % every or any(p["iteration"] == ppo.iteration for p in curve):
        return
    # from the far end of the list, so that the final evaluation's start states stay unseen
    total = len(here.benchmark.starts(here.task))
    indices = range(total - episodes, total)
    parallel = here.study.evaluation.parallel
    result = evaluate(here.policy(ppo.policy), here.benchmark, indices=indices, parallel=parallel)
    curve.append({"iteration": ppo.iteration, **result.to_dict()})
    recorder.log(ppo.iteration, {"success": result.rate}, prefix=f"{here.prefix}/real")


def _imagined(here: TaskRun, actor: TunedPolicy, classifier: SuccessClassifier, starts: Latent) -> dict[str, float]:
    """Success in dreams without exploration, one from every start: compare with real success before trusting PPO."""
    count = len(starts.belief)
    night = dream(
        here.model,
        actor,
        classifier,
        starts,
        decisions=here.study.table.max_steps // here.study.policy.chunk,
        threshold=here.study.success.threshold,
        # a seed of its own, so that these dreams are none of those that PPO learns from
        seed=here.seed + 1_000_003,
        rows=torch.arange(count, device=here.device),
    )
    return {key.partition("/")[2]: value for key, value in night.summary().items()}


# Evaluation -----------------------------------------------------------------------------------------------------------


def compare(here: TaskRun) -> None:
    """PPO --> evaluation: both policies from the same start states."""
    artefact = here.run.task(here.seed, here.task, "evaluation")
    if artefact.complete:
        return
    options = here.study.evaluation
    results: dict[str, Evaluation] = {}
    with progress(2 * options.episodes, f"evaluation {here.task}, seed {here.seed}", "episode") as bar:
        for name, stage in (("bc", "clone"), ("ppo", "ppo")):
            policy = here.policy(load_actor(here, stage))
            policy.save_pretrained(here.run.folder / "policies" / f"{here.task}-seed{here.seed}-{name}")
            results[name] = evaluate(
                policy,
                here.benchmark,
                indices=range(options.episodes),
                parallel=options.parallel,
                films=options.videos,
                progress=bar.update,
            )
    values: dict[str, Any] = {name: result.to_dict() for name, result in results.items()}
    values |= {"task": here.task, "seed": here.seed}
    write_json(here.run.folder / "evaluation" / f"{here.task}-seed{here.seed}.json", values)
    _film(here, results)
    rates = {name: result.rate for name, result in results.items()}
    LOGGER.info("%s, seed %d: BC %.0f %%, PPO %.0f %%", here.task, here.seed, 100 * rates["bc"], 100 * rates["ppo"])
    artefact.finish(rates)


def _film(here: TaskRun, results: Mapping[str, Evaluation]) -> None:
    rollouts = []
    for i in range(len(results["bc"].frames)):
        for name in ("bc", "ppo"):
            result = results[name]
            label = f"{name.upper()}, start {int(result.index[i])}"
            rollouts.append(Rollout(label, result.frames[i], bool(result.success[i])))
    if rollouts:
        rollout_video(rollouts, here.run.folder / "videos" / f"{here.task}-seed{here.seed}.mp4")
