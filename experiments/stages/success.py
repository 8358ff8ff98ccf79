"""Latents --> success classifier, and whether dreams are true enough to learn from: measured on held-out attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.report.recorded.jurors import TELL_APART
from experiments.report.statistics import success_rate
from experiments.report.table import label as named
from experiments.report.table import points
from experiments.report.trust import Trust, trust, youden
from experiments.stages.task_run import TaskRun, pick, without_prefix
from experiments.study.checks import measured
from experiments.study.run import LOGGER
from worldaction.io.atomic import load_tensors, save_tensors
from worldaction.io.recorder import Recorder
from worldaction.latents import encode, imagine_recorded
from worldaction.play.action_masking import knows_actions
from worldaction.spec import SCENE
from worldaction.success import SuccessClassifier, fit_success, precision_recall

PLAY_WINDOWS, PLAY_LENGTH = 150, 48
"""Windows of play beside the attempts of the task, from which the classifier learns what else there is."""
CLASSIFIER_SAMPLES = 3
"""Posterior samples of every episode that the classifier sees."""

Ranges = Sequence[tuple[int, int]]
Labelled = tuple[Tensor, Tensor]


def learn_success(task_run: TaskRun, recorder: Recorder) -> None:
    """latents --> success classifier."""
    artefact = task_run.run.task(task_run.seed, task_run.task, "success")
    if artefact.complete:
        return
    options = task_run.study.success
    generator = torch.Generator().manual_seed(task_run.seed)
    ranges = [*task_run.attempts("training"), *_play_windows(task_run, generator)]
    training = _labelled(task_run, ranges, generator).values()
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
        begin=None if task_run.before is None else load_classifier(task_run.before),
    )
    found = _measured(task_run, classifier, generator)
    save_tensors(artefact.folder / "classifier.safetensors", classifier.state_dict())
    artefact.finish({**found, "threshold": options.threshold, "config": classifier.config})
    _say(task_run)


def dreams_of(task_run: TaskRun) -> Trust:
    """What dreams of a task whose classifier is there are worth."""
    results = task_run.run.task(task_run.seed, task_run.task, "success").results
    return trust(results["verdicts"], task_run.study.success)


def _say(task_run: TaskRun) -> None:
    """Warn of dreams from which nothing, or nothing for sure, can be learned, and say what follows."""
    (word, why), task, seed = dreams_of(task_run), task_run.task, task_run.seed
    if task_run.run.held_out:
        # as the page does, which has it of all jurors together
        apart = youden(task_run.run.task(seed, task, "success").results["verdicts"])
        if apart is not None and apart.value < TELL_APART:
            more = f"of successes {points(apart.value)} points more dreams succeed than of failures"
            LOGGER.warning("juror %d hardly tells successes from failures at %s: %s", seed, task, more)
        return
    who = named(task_run.study.improved)
    follows = "is not trained" if task_run.study.success.stop_on_no_go else "is trained all the same"
    said = {
        "no-go": f"no-go for dreams of {task}, seed {seed}, in which {who} {follows}",
        "with care": f"dreams of {task}, seed {seed}, are to be taken with care",
        "not known": f"how true dreams of {task}, seed {seed}, are is not known, and {who} is trained in them",
    }
    if word in said:
        LOGGER.warning("%s: %s", said[word], "; ".join(why))


def _measured(task_run: TaskRun, classifier: SuccessClassifier, generator: torch.Generator) -> dict[str, Any]:
    """What the classifier and dreams say of attempts on which nothing was trained, or why that is not known."""
    ranges = task_run.attempts("validation")
    if not ranges:
        why = _nothing_held_out(task_run)
        return {"held_out": {"skipped": why}, "verdicts": {"skipped": why}}
    scores: dict[str, Any] = {"attempts": len(ranges)}
    for kind, (feature, label) in _labelled(task_run, ranges, generator).items():
        with torch.no_grad():
            probability = classifier.probability(feature)
        scores[kind] = precision_recall(probability, label, task_run.study.success.threshold)._asdict()
    return {"held_out": scores, "verdicts": _verdicts(task_run, classifier, ranges)}


def _nothing_held_out(task_run: TaskRun) -> str:
    if task_run.study.play is not None:
        return f"{task_run.study.play} has no validation window of {task_run.task}"
    return f"no attempt at {task_run.task} is held out; raise --data.near-misses or --success.held-out"


def _verdicts(task_run: TaskRun, classifier: SuccessClassifier, ranges: Ranges) -> dict[str, Any]:
    """What dreams say of attempts whose end is known: imagined from the first frame on, under the recorded actions.

    Returns:
        for those that "succeeded" and those that "failed": "attempts", how many there are; "dreams" of them, several
        each; "called", how many of these succeed; that "rate" and its "interval", in which an attempt is a cluster
        (both None without one). The second rate is what a policy can exploit.
    """
    episodes = encode(task_run.model, task_run.store.frames, ranges, resamples=CLASSIFIER_SAMPLES, seed=task_run.seed)
    begin = torch.zeros(CLASSIFIER_SAMPLES, len(episodes), dtype=torch.int64)
    dreamed, later = imagine_recorded(task_run.model, task_run.store.frames, episodes, begin=begin, seed=task_run.seed)
    with torch.no_grad():
        called = classifier.probability(task_run.model.feature(dreamed)) >= task_run.study.success.threshold
    # [R, M] in each dream, and [M] in truth
    said = (called & later).any(-1).cpu().numpy()
    true = (task_run.label(episodes.frame) & episodes.mask).any(-1).numpy()
    return {"succeeded": _share(said[:, true]), "failed": _share(said[:, ~true])}


def _share(said: np.ndarray) -> dict[str, Any]:
    """Of R dreams of each of M attempts [R, M], those that succeed."""
    found = {"attempts": said.shape[1], "dreams": said.size, "called": int(said.sum())}
    if not said.size:
        return found | {"rate": None, "interval": None}
    rate = success_rate(said, np.broadcast_to(np.arange(said.shape[1]), said.shape))
    return found | {"rate": rate.value, "interval": list(rate.interval)}


def _play_windows(task_run: TaskRun, generator: torch.Generator) -> list[tuple[int, int]]:
    """Windows of play in whose first frame the task can still be done, as it can where dreams begin.

    Done already, it could not be done again: such a window would teach that an open drawer is none.
    """
    if task_run.told_by_recording:
        return []
    play = [
        e for e in measured(task_run.store.episodes, "training") if task_run.benchmark.shows(task_run.task, e.scene)
    ]
    # imagination goes on under the recorded actions
    episodes = [e for e in play if knows_actions(task_run.store, e)]
    length = min(PLAY_LENGTH, max((e.length for e in episodes), default=0))
    if not episodes:
        return []
    first = torch.cat([torch.arange(e.start, e.stop - length + 1) for e in episodes if e.length >= length])
    scene = task_run.store.frames[SCENE][first].numpy()
    first = first[torch.from_numpy(task_run.benchmark.possible(task_run.task, scene))]
    if not len(first):
        return []
    chosen = first[torch.randint(len(first), (PLAY_WINDOWS,), generator=generator)].tolist()
    return [(start, start + length) for start in chosen]


def _labelled(task_run: TaskRun, ranges: Ranges, generator: torch.Generator) -> dict[str, Labelled]:
    """Features and labels of episodes, filtered ("real") and imagined from a random frame on ("imagined").

    What is imagined is labelled by what happened in truth.
    """
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
