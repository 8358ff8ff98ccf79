"""Latents --> success classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from experiments.stages.task_run import TaskRun, pick, without_prefix
from experiments.study.checks import measured
from worldaction.io.artefact import load_tensors, save_tensors
from worldaction.io.recorder import Recorder
from worldaction.latents import encode, imagine_recorded
from worldaction.play.action_masking import knows_actions
from worldaction.play.windows import WindowSampler
from worldaction.success import SuccessClassifier, fit_success, precision_recall

PLAY_WINDOWS, PLAY_LENGTH = 150, 48
"""Windows of play beside the attempts of the task, from which the classifier learns what else there is."""
CLASSIFIER_SAMPLES = 3
"""Posterior samples of every episode that the classifier sees."""


def learn_success(task_run: TaskRun, recorder: Recorder) -> None:
    """latents --> success classifier."""
    artefact = task_run.run.task(task_run.seed, task_run.task, "success")
    if artefact.complete:
        return
    options = task_run.study.success
    attempts = [(s.start, s.stop) for s in task_run.segments if s.task == task_run.task]
    generator = torch.Generator().manual_seed(task_run.seed)
    order = torch.randperm(len(attempts), generator=generator).tolist()
    apart = max(1, round(len(order) * options.held_out))
    parts = {"held_out": [attempts[i] for i in order[:apart]], "training": [attempts[i] for i in order[apart:]]}
    play = _play_windows(task_run)
    data = {name: _labelled(task_run, ranges + play[name], generator) for name, ranges in parts.items()}
    training = [data["training"][kind] for kind in ("real", "imagined")]
    recorder.rewind(f"{task_run.prefix}/success", 0)

    def report(step: int, figures: Mapping[str, float]) -> None:
        if step % 50 == 0:
            recorder.log(step, without_prefix("success/", figures), prefix=f"{task_run.prefix}/success")

    classifier = fit_success(
        torch.cat([feature for feature, _ in training]),
        torch.cat([label for _, label in training]),
        hidden=options.hidden,
        dropout=options.dropout,
        steps=options.steps,
        batch=options.batch,
        lr=options.lr,
        contrastive=options.contrastive,
        seed=task_run.seed,
        report=report,
    )
    scores = {}
    for kind, (feature, label) in data["held_out"].items():
        with torch.no_grad():
            probability = classifier.probability(feature)
        scores[kind] = precision_recall(probability, label, options.threshold)._asdict()
    verdicts = _verdicts(task_run, classifier, parts["held_out"])
    save_tensors(artefact.folder / "classifier.safetensors", classifier.state_dict())
    artefact.finish(
        {"held_out": scores, "verdicts": verdicts, "threshold": options.threshold, "config": classifier.config}
    )


def _verdicts(task_run: TaskRun, classifier: SuccessClassifier, ranges: list[tuple[int, int]]) -> dict[str, Any]:
    """What dreams say of attempts whose end is known: imagined from the first frame on, under the recorded actions.

    Returns:
        how many of the attempts that "succeeded" and "failed" there were, and the share of each that dreams call a
        success (None without one): the second share is what a policy can exploit.
    """
    episodes = encode(task_run.model, task_run.store.frames, ranges, resamples=CLASSIFIER_SAMPLES, seed=task_run.seed)
    begin = torch.zeros(CLASSIFIER_SAMPLES, len(episodes), dtype=torch.int64)
    dreamed, later = imagine_recorded(task_run.model, task_run.store.frames, episodes, begin=begin, seed=task_run.seed)
    with torch.no_grad():
        called = classifier.probability(task_run.model.feature(dreamed)) >= task_run.study.success.threshold
    # [R, M] in each dream, and [M] in truth
    said = (called & later).any(-1).float().mean(0).cpu()
    true = (task_run.label(episodes.frame) & episodes.mask).any(-1)
    found = {"succeeded": true, "failed": ~true}
    counts: dict[str, Any] = {name: int(which.sum()) for name, which in found.items()}
    shares = {f"called_{name}": said[which].mean().item() if which.any() else None for name, which in found.items()}
    return counts | shares


def _play_windows(task_run: TaskRun) -> dict[str, list[tuple[int, int]]]:
    """Windows of play for training and for measuring."""
    found: dict[str, list[tuple[int, int]]] = {}
    for name, split, count in (("training", "training", PLAY_WINDOWS), ("held_out", "validation", PLAY_WINDOWS // 3)):
        play = [e for e in measured(task_run.store.episodes, split) if task_run.benchmark.shows(task_run.task, e.scene)]
        # imagination goes on under the recorded actions
        episodes = [e for e in play if knows_actions(task_run.store, e)]
        length = min(PLAY_LENGTH, max((e.length for e in episodes), default=0))
        if not episodes:
            found[name] = []
            continue
        index, _ = WindowSampler(episodes, length=length, seed=task_run.seed).sample(None, count * length)
        found[name] = [(int(start), int(start) + length) for start in index.view(count, length)[:, 0]]
    return found


def _labelled(
    task_run: TaskRun, ranges: list[tuple[int, int]], generator: torch.Generator
) -> dict[str, tuple[Tensor, Tensor]]:
    """Features and labels of episodes, filtered ("real") and imagined from a random frame on ("imagined")."""
    episodes = encode(task_run.model, task_run.store.frames, ranges, resamples=CLASSIFIER_SAMPLES, seed=task_run.seed)
    lengths = episodes.mask.sum(-1)
    share = torch.rand(CLASSIFIER_SAMPLES, len(episodes), generator=generator)
    begin = (share * (lengths - 8).clamp_min(1)).long()
    dreamed, later = imagine_recorded(task_run.model, task_run.store.frames, episodes, begin=begin, seed=task_run.seed)
    label = task_run.label(episodes.frame).to(task_run.device).expand(CLASSIFIER_SAMPLES, -1, -1)
    seen = episodes.mask.to(task_run.device).expand(CLASSIFIER_SAMPLES, -1, -1)
    return {
        "real": (task_run.model.feature(pick(episodes.latent, seen)), label[seen]),
        "imagined": (task_run.model.feature(pick(dreamed, later)), label[later]),
    }


def load_classifier(task_run: TaskRun) -> SuccessClassifier:
    """The trained classifier."""
    artefact = task_run.run.task(task_run.seed, task_run.task, "success")
    classifier = SuccessClassifier(**artefact.results["config"])
    classifier.load_state_dict(load_tensors(artefact.path / "classifier.safetensors"))
    return classifier.to(task_run.device).eval().requires_grad_(False)
