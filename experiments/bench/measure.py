"""The parts of the benchmark: what is timed at which sizes, after what is not right has been refused; and its files."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from experiments.bench import PARTS, denoising, dreams, figures, gate, growth, pipeline
from experiments.bench.base import DreamWorkload, Library, Sizes, Windows, Work, Workload
from experiments.bench.clock import time_in_turns
from experiments.bench.growth import Cost, Growth, slopes
from experiments.bench.results import Comparison, Entry, footnotes, gate_table, table
from experiments.report.figures import save_figure
from worldaction.io.atomic import write_json

LOGGER = logging.getLogger("worldaction")


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    rounds: int
    workloads: tuple[Workload, ...]
    dreams: DreamWorkload
    windows: Windows
    episodes: int
    growth: Growth
    compiled: bool


def full(rounds: int) -> Scale:
    """The sizes of the published numbers: minutes."""
    workloads = (Workload(batch=256), Workload(batch=1024))
    return Scale(rounds, workloads, DreamWorkload(), Windows(), 20, Growth(), True)


def quick(rounds: int) -> Scale:
    """Everything once, small: whether it works, and no number to be quoted."""
    sizes = Sizes(deter=64, groups=8, classes=8, hidden=64)
    workload = Workload(sizes, batch=32, horizon=4)
    costs = Growth(workload, batches=(16, 64), horizons=(2, 8), widths=(32, 64), rounds=1)
    whole = DreamWorkload(sizes, batch=32, decisions=2, denoising_steps=3, width=32)
    return Scale(min(rounds, 3), (workload,), whole, Windows(sizes, batch=2, length=4, depth=8), 2, costs, False)


@dataclass
class Results:
    """Everything that a benchmark came to."""

    about: dict[str, Any]
    gate: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Comparison -> implementation of ours -> its errors by name."""
    comparisons: list[Comparison] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **self.about,
            "gate": self.gate,
            "comparisons": [comparison.plain() for comparison in self.comparisons],
            "growth": [asdict(cost) for cost in self.costs],
            "growth_exponents": slopes(self.costs) if self.costs else {},
        }


class Benchmark:
    """One run of some parts.

    Args:
        scale: how much of everything.
        libraries: ours first.
        device: where to compute.
        results: what is measured is added to it.
    """

    def __init__(self, scale: Scale, libraries: Sequence[Library], device: torch.device, results: Results) -> None:
        self.scale, self.libraries, self.device, self.results = scale, libraries, device, results
        self.clock = "wall" if device.type == "cuda" else "cpu"

    def run(self, parts: Sequence[str]) -> None:
        """Measure.

        Args:
            parts: of `PARTS`.

        Raises:
            UserError: one of our implementations is wrong.
        """
        for part in PARTS:
            if part in parts:
                measure: Callable[[], None] = getattr(self, part)
                measure()

    def imagination(self) -> None:
        """Latent steps under given actions, at every workload."""
        for workload in self.scale.workloads:
            name = f"imagination, B={workload.batch}, H={workload.horizon}"
            verdicts = gate.rollouts(workload, self.device, compiled=self.scale.compiled)
            self.results.gate[name] = {who: asdict(verdict) for who, verdict in verdicts.items()}
            self._time(name, "latent steps", _joined(library.imagination(workload) for library in self.libraries))

    def denoising(self) -> None:
        """The policy's denoising loop."""
        workload, compiled = self.scale.dreams, self.scale.compiled
        name = f"denoising, B={workload.batch}"
        self.results.gate[name] = denoising.examined(workload, self.device, compiled=compiled)
        self._time(name, "chunks of actions", denoising.works(workload, self.device, compiled=compiled))

    def dreams(self) -> None:
        """Whole dreams under a policy."""
        name = f"dreams with policy, B={self.scale.dreams.batch}"
        self.results.gate[name] = dreams.examined(self.scale.dreams, self.device)
        self._time(name, "chunks of actions", dreams.works(self.scale.dreams, self.device))

    def training(self) -> None:
        """One gradient step of the world model."""
        windows = self.scale.windows
        self.results.gate["training"] = {"bf16": {"loss": gate.same_training(windows, self.device)}}
        name = f"world-model step, {windows.batch} x {windows.length} frames of {windows.image} x {windows.image} x 3"
        self._time(name, "a step", _joined(library.training(windows) for library in self.libraries), slow=True)

    def simulator(self) -> None:
        """Control steps of the play table."""
        self._time("simulator", "control steps", pipeline.simulator(image=self.scale.windows.image))

    def loading(self) -> None:
        """Frames of windows, from disk to tensors."""
        with tempfile.TemporaryDirectory() as folder:
            works = pipeline.loading(Path(folder), self.scale.windows, episodes=self.scale.episodes)
            self._time("data loading", "frames", works)

    def growth(self) -> None:
        """Cost of imagination along batch, horizon and width."""
        LOGGER.info("growth over batch, horizon and width")
        self.results.costs = growth.measure(self.scale.growth, self.device)

    def _time(self, name: str, unit: str, works: Mapping[str, Work], *, slow: bool = False) -> None:
        LOGGER.info("%s: %s", name, "; ".join(works))
        times = time_in_turns(works, rounds=self.scale.rounds, device=self.device)
        entries = tuple(Entry.of(who, works[who], turns) for who, turns in times.items())
        self.results.comparisons.append(Comparison(name, unit, entries, self.clock, slow))


def _joined(parts: Iterable[Mapping[str, Work]]) -> dict[str, Work]:
    return {name: work for part in parts for name, work in part.items()}


def write(results: Results, folder: Path) -> str:
    """Write benchmark.json, benchmark.md and the figures into a folder.

    Returns:
        the text of benchmark.md.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "benchmark.json", results.plain())
    parts, plots = [_head(results.about)], {}
    if results.comparisons:
        parts += [table(results.comparisons), "![Speeds](speeds.png)", footnotes(results.comparisons)]
        plots["speeds"] = figures.speeds(results.comparisons)
    if results.gate:
        parts.append(gate_table(results.gate))
    if results.costs:
        parts.append("![Growth](growth.png)")
        clock = results.comparisons[0].clock if results.comparisons else "cpu"
        plots["growth"] = figures.growth(results.costs, clock=clock)
    for name, plot in plots.items():
        save_figure(plot.figure, folder / name, plot.data)
    text = "\n\n".join(parts) + "\n"
    (folder / "benchmark.md").write_text(text, encoding="utf-8")
    return text


def _head(about: dict[str, Any]) -> str:
    return (
        f"{about['when'][:10]}, commit {about['commit'] or 'unknown'}, {about['device']} "
        f"({about['processor']}, {about['cores']} cores), {about['threads']} thread(s), {about['rounds']} rounds"
        f"{', quick: no number to be quoted' if about['quick'] else ''}."
    )
