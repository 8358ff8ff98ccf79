"""A policy's folder and where it can be tested, looked up before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from envs.benchmark import Benchmark, benchmark_of
from worldaction.errors import UserError
from worldaction.io.files import sha256_of
from worldaction.io.sealed_json import read_json
from worldaction.io.typed_json import typed
from worldaction.spec import Layout

FIRST: Final = 450
"""Number of the first start state, as in the presets: those before it have been used to choose settings."""


class SavedPolicy(NamedTuple):
    """What the config.json of a policy's folder says of it."""

    folder: Path
    task: str
    env: Mapping[str, Any] | None
    """See `agents.policy.Policy`."""
    cameras: tuple[str, ...]
    """That it sees."""
    layout: Layout

    @property
    def weights(self) -> str:
        """A hash of its numbers, by which it is told from others of its name."""
        return sha256_of(self.folder / "model.safetensors")

    @classmethod
    def read(cls, folder: Path) -> SavedPolicy:
        """Read it.

        Raises:
            UserError: the folder holds no policy.
        """
        values = _config(folder)
        if not _is_policy(values):
            policies = sorted(path.parent for path in folder.glob("policies/*/config.json"))
            hint = f"give one of its policies, such as {policies[0]}" if policies else "give the folder of one"
            raise UserError(f"{folder} holds no policy; {hint}")
        try:
            model = values["model"]
            layout: Layout = typed(model["layout"], Layout, folder / "config.json")
            return cls(folder, values["task"], values.get("env"), tuple(model["cameras"]), layout)
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder / 'config.json'} is damaged ({error!r}); save the policy again") from error


def is_policy(folder: Path) -> bool:
    """Whether a folder is one of a policy, by the look of its config.json."""
    return (folder / "config.json").exists() and _is_policy(_config(folder))


def _is_policy(values: Any) -> bool:
    return isinstance(values, dict) and all(key in values for key in ("task", "model", "actor"))


def _config(folder: Path) -> Any:
    if not (folder / "config.json").exists():
        raise UserError(f"{folder} has no config.json; give the folder of a policy, RUN/policies/NAME")
    return read_json(folder / "config.json")


def benchmark_for(saved: SavedPolicy, env: str | None) -> Benchmark:
    """Where a saved policy is tested: in its own environment, or in another of the same kind.

    Args:
        saved: the policy.
        env: the other one, as `--env` names it.

    Raises:
        UserError: there is none, or the policy does not fit into it.
    """
    benchmark = benchmark_of(saved, env=env)
    benchmark.check(saved.task)
    ours, there = saved.layout, benchmark.layout
    for name in ("robot", "action"):
        if (own := getattr(ours, name)) != (other := getattr(there, name)):
            raise UserError(
                f"{saved.folder} has {own} numbers of {name}, {benchmark.name} has {other}; give another --env"
            )
    if missing := [camera for camera in saved.cameras if camera not in there.cameras]:
        raise UserError(f"{saved.folder} sees {missing[0]}, which {benchmark.name} has not got; give another --env")
    return benchmark


def start_indices(benchmark: Benchmark, task: str, *, first: int | None, episodes: int) -> range:
    """Numbers of start states of a task's fixed list.

    Args:
        benchmark: where.
        task: the task.
        first: the first of them; by default `FIRST`, or 0 in a list that has not so many.
        episodes: how many.

    Raises:
        UserError: there are not so many.
    """
    total = len(benchmark.starts(task))
    begin = (FIRST if total > FIRST else 0) if first is None else first
    if not 0 <= begin < total:
        raise UserError(f"--first {begin}: there are {total} start states of {task}; give 0 to {total - 1}")
    if not 1 <= episodes <= total - begin:
        raise UserError(
            f"--episodes {episodes}: give 1 to {total - begin}, as many as there are from number {begin} on"
        )
    return range(begin, begin + episodes)
