"""Improved policy --> its own episodes --> world model, classifier, BC and improvement again.

A round is a side of the run (`Run.round`): its stages are those of the run, on play that has what was recorded of the
policy of the round before, and they go on training what that round has trained. BC is given the same successes.
"""

from __future__ import annotations

from experiments.real.collect import collect, collected
from experiments.real.starts import round_numbers
from experiments.stages.bc import load_actor
from experiments.stages.improve import STAGE
from experiments.stages.task_run import TaskRun
from experiments.study.run import LOGGER, Run
from worldaction.io.recorder import progress
from worldaction.play.store import PlayStore, concatenate


def record_policy(run: Run, seed: int, task: str) -> None:
    """Improved policy --> its own episodes, from start states of no other use."""
    artefact = run.recorded(seed, task)
    if artefact.complete:
        return
    assert run.before is not None
    task_run, episodes = TaskRun(run.before, seed, task), run.study.real.episodes
    policy, path = task_run.policy(load_actor(task_run, STAGE)), artefact.folder / "store"
    if not path.exists():
        with progress(episodes, f"{run.study.improved.upper()} {task}, seed {seed}, is recorded", "episode") as bar:
            numbers = round_numbers(run.round, episodes)
            like = task_run.store.meta
            collect(policy, task_run.benchmark, path, numbers=numbers, like=like, progress=bar.update)
    found = collected(PlayStore.open(path))
    artefact.finish(found._asdict())
    LOGGER.info("%s, seed %d: %d of %d recorded episodes succeeded", task, seed, found.successes, found.episodes)


def join_play(run: Run, seed: int) -> None:
    """Play and all that has been recorded of a seed's policies --> the play of a round."""
    artefact = run.play(seed)
    if artefact.complete:
        return
    assert run.before is not None
    before, path = run.before.play(seed), artefact.folder / "store"
    parts = [PlayStore.open(before.path / "store")]
    first = before.results["recorded_from"] if run.before.round else len(parts[0])
    parts += [PlayStore.open(run.recorded(seed, task).path / "store") for task in run.study.tasks]
    store = PlayStore.open(path) if path.exists() else concatenate(parts, path)
    artefact.finish({"frames": len(store), "recorded_from": first})
