"""Latents --> behaviour cloning of the policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from agents.bc import clone, demonstration_chunks
from agents.policies.base import PolicyHead
from agents.policy import Actor, Policy, build_actor, config_of
from experiments.stages.demonstrations import cloned
from experiments.stages.task_run import TaskRun, pick
from worldaction.io.atomic import load_tensors, save_tensors, write_json
from worldaction.io.recorder import Recorder, progress
from worldaction.io.sealed_json import read_json
from worldaction.latents import EpisodeLatents, encode
from worldaction.play.action_masking import knows_actions
from worldaction.play.store import PlayStore
from worldaction.random import Stream, normal
from worldaction.spec import ACTION
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import WorldModel, restore


def clone_policy(task_run: TaskRun, recorder: Recorder) -> None:
    """latents --> BC."""
    artefact = task_run.run.task(task_run.seed, task_run.task, "clone")
    if artefact.complete:
        return
    options, (head, head_options) = task_run.study.clone, task_run.head
    ranges = cloned(task_run)
    episodes = encode(task_run.model, task_run.store.frames, ranges, resamples=options.resamples, seed=task_run.seed)
    features, chunks = demonstrations(task_run.model, task_run.store, episodes, chunk=task_run.study.policy.chunk)
    recorder.rewind(f"{task_run.prefix}/clone", 0)

    def report(step: int, figures: Mapping[str, float]) -> None:
        bar.update(1)
        if step % 50 == 0:
            recorder.log(step, figures, prefix=f"{task_run.prefix}/clone")

    with progress(options.steps, f"BC {task_run.task}, seed {task_run.seed}", "step") as bar:
        policy = clone(
            head,
            features,
            chunks,
            options=vars(head_options),
            binary=task_run.store.meta.layout.binary,
            steps=options.steps,
            batch=options.batch,
            lr=options.lr,
            weight_decay=options.weight_decay,
            ema=options.ema,
            seed=task_run.seed,
            report=report,
            begin=_begun(task_run),
        )
    save_actor(artefact.folder, policy)
    artefact.finish({"demonstrations": len(ranges), "frames": chunks.shape[0]})


def _begun(task_run: TaskRun) -> PolicyHead | None:
    """The clone that this one goes on from, if it does."""
    if task_run.before is None:
        return None
    found = load_actor(task_run.before, "clone")
    assert isinstance(found, PolicyHead)
    return found


def demonstrations(
    model: WorldModel, store: PlayStore, episodes: EpisodeLatents, *, chunk: int
) -> tuple[Tensor, Tensor]:
    """Features [R, M, F] of all frames of the demonstrations, and the chunks [M, K, A] that follow them."""
    latent = pick(Latent(*(p.movedim(0, 2) for p in episodes.latent)), episodes.mask.to(episodes.latent.belief.device))
    # [M, R, F] to [R, M, F]
    features = model.feature(latent).transpose(0, 1).contiguous()
    parts = []
    for frame, mask in zip(episodes.frame, episodes.mask, strict=True):
        actions = store.frames[ACTION][frame[mask]]
        parts.append(demonstration_chunks(actions, chunk, layout=store.meta.layout))
    return features, torch.cat(parts).to(features.device)


@torch.no_grad()
def action_error(task_run: TaskRun, policy: Policy) -> float | None:
    """How far the first action of a policy's decisions is from the demonstrated one, on held-out demonstrations.

    Returns:
        the mean absolute error, as a share of that of always giving the mean action of these demonstrations; None
        without such demonstrations, or where all their actions are the same.
    """
    store = task_run.store
    found = store.demonstrations(task_run.task, split="validation")
    ranges = [(d.start, d.stop) for d in found if knows_actions(store, store.episode_of(d.start))]
    if not ranges:
        return None
    episodes = encode(task_run.model, store.frames, ranges, resamples=1, seed=task_run.seed)
    features, chunks = demonstrations(task_run.model, store, episodes, chunk=task_run.study.policy.chunk)
    feature, wanted = features[0], chunks[:, 0]
    rows, (steps, width) = torch.arange(len(feature), device=feature.device), policy.actor.noise_shape
    noise = normal(task_run.seed, Stream.POLICY, rows, 0, steps * width).view(-1, steps, width)
    given = policy.actor.sample(feature, noise, deterministic=policy.sampler == "deterministic")[:, 0]
    plain = (wanted - wanted.mean(0)).abs().mean()
    return float((given - wanted).abs().mean() / plain) if plain > 0 else None


def save_actor(folder: Path, actor: Actor) -> None:
    """Write an actor into a stage's folder."""
    save_tensors(folder / "actor.safetensors", actor.state_dict())
    write_json(folder / "actor.json", config_of(actor))


def load_actor(task_run: TaskRun, stage: str) -> Actor:
    """The frozen policy of a stage: "clone" or "ppo"."""
    folder = task_run.run.task(task_run.seed, task_run.task, stage).path
    actor = build_actor(read_json(folder / "actor.json"), task_run.head[0])
    restore(actor, load_tensors(folder / "actor.safetensors"), source=folder / "actor.safetensors")
    return actor.to(task_run.device).eval().requires_grad_(False)
