"""How the cost of imagination grows: with the batch, the horizon, the model's width; and its memory with the batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from experiments.bench.base import Sizes, Workload
from experiments.bench.clock import median, time_in_turns
from experiments.bench.ours import Ours


@dataclass(frozen=True)
class Growth:
    """Which workloads are run; each list varies one length of `workload`."""

    workload: Workload = field(default_factory=Workload)
    batches: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096)
    horizons: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    widths: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    rounds: int = 3

    def workloads(self) -> dict[str, list[tuple[int, Workload]]]:
        """By what varies: its value and the workload."""
        sizes = self.workload.sizes
        return {
            "batch": [(b, replace(self.workload, batch=b)) for b in self.batches],
            "horizon": [(h, replace(self.workload, horizon=h)) for h in self.horizons],
            "width": [(w, replace(self.workload, sizes=_wide(sizes, w))) for w in self.widths],
        }


@dataclass(frozen=True)
class Cost:
    """What one imagination costs at one point.

    Attributes:
        axis: what varies.
        value: its value.
        name: who.
        cpu: CPU seconds a latent step.
        wall: seconds a latent step.
        memory: bytes at the most, on top of what was there; None where it is not measured.
    """

    axis: str
    value: int
    name: str
    cpu: float
    wall: float
    memory: float | None = None


def measure(growth: Growth, device: torch.device) -> list[Cost]:
    """All points, of the reference and of every implementation that runs there. Nothing is compiled for each shape."""
    ours, costs = Ours(device, compiled=False), []
    for axis, points in growth.workloads().items():
        for value, workload in points:
            works = ours.imagination(workload)
            times = time_in_turns(works, rounds=growth.rounds, device=device, least=0.02)
            for name, turns in times.items():
                cpu, wall = (median([getattr(t, clock) for t in turns]).value for clock in ("cpu", "wall"))
                memory = peak(works[name].run, device) if axis == "batch" else None
                costs.append(Cost(axis, value, name, cpu / workload.steps, wall / workload.steps, memory))
    return costs


def peak(run: Callable[[], object], device: torch.device) -> float:
    """Bytes that PyTorch's allocator gives a run at the most, on top of what it had given before."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return float(torch.cuda.max_memory_allocated(device) - before)
    with _silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    assert record.profiler is not None
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return float(np.cumsum([0, *changes]).max())


@contextmanager
def _silent() -> Iterator[None]:
    """Without what the profiler's C++ code writes to standard error whenever it starts and stops."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent of the power law through points, by least squares: 0 is flat, 1 is linear."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def slopes(costs: Sequence[Cost]) -> Mapping[str, Mapping[str, float]]:
    """Exponent of the CPU time of a step along each axis, and bytes of one more row, for each name."""
    result: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(cost.name for cost in costs):
        mine = [cost for cost in costs if cost.name == name]
        lines = {axis: [c for c in mine if c.axis == axis] for axis in dict.fromkeys(c.axis for c in mine)}
        result[name] = {axis: slope([c.value for c in line], [c.cpu for c in line]) for axis, line in lines.items()}
        held = [(c.value, c.memory) for c in mine if c.memory is not None]
        # packed weights are held whatever the batch is: what one more row takes is the question
        (fewest, least), (most, largest) = min(held), max(held)
        result[name]["bytes_a_row"] = (largest - least) / (most - fewest)
    return result


def _wide(sizes: Sizes, width: int) -> Sizes:
    return replace(sizes, deter=width, hidden=width)
