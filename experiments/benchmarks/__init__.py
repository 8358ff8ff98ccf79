"""Where a study's agents live: tasks, simulator, play data, and how success is judged. A new one is one new file."""

from __future__ import annotations

from experiments.benchmarks.base import START_STATES, Benchmark, Start, start_seed, surviving
from experiments.presets import Study

__all__ = ["START_STATES", "Benchmark", "Start", "open_benchmark", "start_seed", "surviving"]


def open_benchmark(study: Study, *, renderer: str | None = None) -> Benchmark:
    """The benchmark that a study asks for with `--env`.

    Args:
        study: the settings.
        renderer: what drew the play data, if it is known: the evaluation must be drawn alike.

    Raises:
        UserError: there is no such environment, or it cannot do what the study asks.
    """
    from envs import CALVIN_ID, PLAY_TABLE_ID

    if study.env == PLAY_TABLE_ID:
        from experiments.benchmarks.tables import PlayTable

        return PlayTable.of(study, renderer)
    if study.env == CALVIN_ID:
        from experiments.benchmarks.tables import Calvin

        return Calvin.of(study, renderer)
    from experiments.benchmarks.general import General

    return General.of(study)
