"""The whole study at a size that takes seconds, and whether two runs of it came to the same, to the bit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from worldaction.io.atomic import load_tensors
from worldaction.io.recorder import read_metrics

SETTINGS: Final[Mapping[str, Any]] = {
    "table.max-steps": 16,
    "data.frames": 480,
    "data.episode-frames": 48,
    "data.near-misses": 4,
    "data.demos": 3,
    "world-model.cameras": "rgb_static",
    "world-model.batch": 4,
    "world-model.length": 8,
    "world-model.steps": 40,
    "world-model.save-every": 5,
    "success.steps": 50,
    "clone.steps": 50,
    "update.iterations": 3,
    "update.dreams": 8,
    "update.starts": 4,
    "update.warmup": 1,
    "update.max-imagined": 2.0,
    "update.min-time": 0.0,
    "update.evaluate-every": 1,
    "evaluation.episodes": 2,
    "evaluation.curve-episodes": 2,
    "evaluation.sampler-episodes": 2,
    "evaluation.dreams": 4,
    "evaluation.judged-episodes": 2,
    "evaluation.parallel": 2,
    "evaluation.videos": 1,
    "evaluation.probes": 4,
    "evaluation.horizon": 8,
}


def options(**changes: Any) -> list[str]:
    """The command line of the tiny study; `data_frames=100` changes the setting `data.frames`."""
    values = dict(SETTINGS) | {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
    return ["debug", *(part for key, value in values.items() for part in (f"--{key}", str(value)))]


# What a run came to ---------------------------------------------------------------------------------------------------


def evaluations(run: Path) -> dict[str, Any]:
    """Every file of evaluation/."""
    return {path.name: json.loads(path.read_text()) for path in sorted((run / "evaluation").glob("*.json"))}


def metrics(run: Path) -> list[dict[str, Any]]:
    """Every recorded line without its time, in order."""
    lines = [{key: value for key, value in line.items() if key != "time"} for line in read_metrics(run)]
    return sorted(lines, key=lambda line: (line["prefix"], line["step"]))


def summary(run: Path) -> dict[str, Any]:
    """summary.json without what depends on the clock, and on who commits meanwhile."""
    values: dict[str, Any] = json.loads((run / "summary.json").read_text())
    left_out = ("commit", "summarised_by", "seal")
    return {key: value for key, value in values.items() if "seconds" not in key and key not in left_out}


def weights(run: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every trained tensor of a run, by file and name."""
    for path in sorted(run.rglob("*.safetensors")):
        for name, tensor in sorted(load_tensors(path).items()):
            yield f"{path.relative_to(run)}:{name}", tensor


def files(run: Path) -> set[str]:
    """Every file of a run, apart from TensorBoard's, whose names hold the time, and locks of finished artefacts.

    A process that is killed right after it wrote a manifest leaves its lock, which nobody asks for any more.
    """
    found = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("tensorboard") and not name.endswith("/.lock")}


def differences(one: Path, other: Path, *, shared_cache: bool = False) -> list[str]:
    """In what two runs came to other results, down to the last bit, or left other files.

    Args:
        one: a finished run.
        other: a finished run.
        shared_cache: compare what is in the runs' own folders, and not whose artefacts they are.
    """
    found = [look.__name__ for look in (evaluations, metrics) if look(one) != look(other)]
    first, second = summary(one), summary(other)
    if shared_cache:
        first.pop("reused"), second.pop("reused")
    found += [f"summary: {key}" for key in first.keys() | second.keys() if first.get(key) != second.get(key)]
    left_out = "cache/" if shared_cache else "\0"
    ours, theirs = ({n: w for n, w in weights(run) if not n.startswith(left_out)} for run in (one, other))
    found += sorted(ours.keys() ^ theirs.keys())
    found += [name for name in ours if name in theirs and not torch.equal(ours[name], theirs[name])]
    if not shared_cache:
        found += sorted(files(one) ^ files(other))
        stores = [path.relative_to(one) for path in one.rglob("*.memmap") if (other / path.relative_to(one)).exists()]
        found += [str(path) for path in stores if (one / path).read_bytes() != (other / path).read_bytes()]
    return found
