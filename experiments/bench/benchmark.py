"""How fast is it, and against what? One command, one table (docs/benchmarks.md).

Whatever of ours is not right is not timed. All contestants of a contest take turns in one process, so that what else
the machine does hits them alike; what is compared is each round's ratio.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldaction.errors import UserError, unknown

if TYPE_CHECKING:
    import torch

    from experiments.bench.base import Contestant, Course, Windows, Work
    from experiments.bench.dreams import Dreams
    from experiments.bench.growth import Cost, Growth
    from experiments.bench.results import Contest

LOGGER = logging.getLogger("worldaction")
PARTS = ("imagination", "denoising", "dreams", "training", "simulator", "loading", "growth")
"""What is measured, in order."""


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    rounds: int
    courses: tuple[Course, ...]
    dreams: Dreams
    windows: Windows
    episodes: int
    growth: Growth
    compiled: bool


def full(rounds: int) -> Scale:
    """The sizes of the published numbers: minutes."""
    from experiments.bench.base import Course, Windows
    from experiments.bench.dreams import Dreams
    from experiments.bench.growth import Growth

    courses = (Course(batch=256), Course(batch=1024))
    return Scale(rounds, courses, Dreams(), Windows(), 20, Growth(), True)


def quick(rounds: int) -> Scale:
    """Everything once, small: whether it works, and no number to be quoted."""
    from experiments.bench.base import Course, Sizes, Windows
    from experiments.bench.dreams import Dreams
    from experiments.bench.growth import Growth

    sizes = Sizes(deter=64, groups=8, classes=8, hidden=64)
    course = Course(sizes, batch=32, horizon=4)
    growth = Growth(course, batches=(16, 64), horizons=(2, 8), widths=(32, 64), rounds=1)
    dreams = Dreams(sizes, batch=32, decisions=2, denoising_steps=3, width=32)
    return Scale(min(rounds, 3), (course,), dreams, Windows(sizes, batch=2, length=4, depth=8), 2, growth, False)


@dataclass
class Results:
    """Everything that a benchmark came to."""

    about: dict[str, Any]
    gate: dict[str, dict[str, Any]] = field(default_factory=dict)
    contests: list[Contest] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        from experiments.bench.growth import slopes

        return {
            **self.about,
            "gate": self.gate,
            "contests": [contest.plain() for contest in self.contests],
            "growth": [asdict(cost) for cost in self.costs],
            "growth_exponents": slopes(self.costs) if self.costs else {},
        }


class Benchmark:
    """One run of some parts.

    Args:
        scale: how much of everything.
        contestants: ours first.
        device: where to compute.
        about: what goes to the head of the results.
    """

    def __init__(
        self, scale: Scale, contestants: Sequence[Contestant], device: torch.device, about: dict[str, Any]
    ) -> None:
        self.scale, self.contestants, self.device = scale, contestants, device
        self.clock = "wall" if device.type == "cuda" else "cpu"
        self.results = Results(about)

    def run(self, parts: Sequence[str]) -> Results:
        """Measure.

        Args:
            parts: of `PARTS`.

        Raises:
            UserError: one of our implementations is wrong.
        """
        for part in PARTS:
            if part in parts:
                steps: Callable[[], None] = getattr(self, part)
                steps()
        return self.results

    def imagination(self) -> None:
        """Latent steps under given actions, at every course."""
        from experiments.bench import gate

        for course in self.scale.courses:
            name = f"imagination, B={course.batch}, H={course.horizon}"
            verdicts = gate.rollouts(course, self.device, compiled=self.scale.compiled)
            self.results.gate[name] = {who: asdict(verdict) for who, verdict in verdicts.items()}
            works = _joined(contestant.imagination(course) for contestant in self.contestants)
            self._race(name, "latent steps", works)

    def denoising(self) -> None:
        """The policy's denoising loop."""
        from experiments.bench.denoising import denoising, examined

        course, compiled = self.scale.dreams, self.scale.compiled
        name = f"denoising, B={course.batch}"
        self.results.gate[name] = examined(course, self.device, compiled=compiled)
        self._race(name, "chunks of actions", denoising(course, self.device, compiled=compiled))

    def dreams(self) -> None:
        """Whole dreams under a policy."""
        from experiments.bench.dreams import dreams, examined

        course = self.scale.dreams
        name = f"dreams with policy, B={course.batch}"
        self.results.gate[name] = examined(course, self.device)
        self._race(name, "chunks of actions", dreams(course, self.device))

    def training(self) -> None:
        """One gradient step of the world model."""
        from experiments.bench import gate

        windows = self.scale.windows
        difference = gate.same_training(windows, self.device)
        self.results.gate["training"] = {"bf16": {"loss": difference}}
        works = _joined(contestant.training(windows) for contestant in self.contestants)
        name = f"world-model step, {windows.batch} x {windows.length} frames of {windows.image} x {windows.image} x 3"
        self._race(name, "a step", works, slow=True)

    def simulator(self) -> None:
        """Control steps of the play table."""
        from experiments.bench.plumbing import simulator

        self._race("simulator", "control steps", simulator(image=self.scale.windows.image))

    def loading(self) -> None:
        """Frames of windows, from disk to tensors."""
        from experiments.bench.plumbing import loading

        with tempfile.TemporaryDirectory() as folder:
            works = loading(Path(folder), self.scale.windows, episodes=self.scale.episodes)
            self._race("data loading", "frames", works)

    def growth(self) -> None:
        """Cost of imagination along batch, horizon and width."""
        from experiments.bench.growth import measure

        LOGGER.info("growth over batch, horizon and width")
        self.results.costs = measure(self.scale.growth, self.device)

    def _race(self, name: str, unit: str, works: Mapping[str, Work], *, slow: bool = False) -> None:
        from experiments.bench.clock import race
        from experiments.bench.results import Contest, Entry

        LOGGER.info("%s: %s", name, "; ".join(works))
        times = race(works, rounds=self.scale.rounds, device=self.device)
        entries = tuple(Entry.of(who, works[who], turns) for who, turns in times.items())
        self.results.contests.append(Contest(name, unit, entries, self.clock, slow))


def _joined(parts: Iterable[Mapping[str, Work]]) -> dict[str, Work]:
    return {name: work for part in parts for name, work in part.items()}


def write(results: Results, folder: Path) -> str:
    """Write benchmark.json, benchmark.md and the figures into a folder.

    Returns:
        the text of benchmark.md.
    """
    from experiments.bench import figures
    from experiments.bench.results import footnotes, gate_table, table
    from experiments.report.figures import save_figure
    from worldaction.io.artefact import write_json

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "benchmark.json", results.plain())
    parts = [_head(results.about)]
    if results.contests:
        parts += [table(results.contests), "![Speeds](speeds.png)", footnotes(results.contests)]
        plot = figures.speeds(results.contests)
        save_figure(plot.figure, folder / "speeds", plot.data)
    parts += [gate_table(results.gate)] if results.gate else []
    if results.costs:
        clock = results.contests[0].clock if results.contests else "cpu"
        parts.append("![Growth](growth.png)")
        plot = figures.growth(results.costs, clock=clock)
        save_figure(plot.figure, folder / "growth", plot.data)
    text = "\n\n".join(parts) + "\n"
    (folder / "benchmark.md").write_text(text, encoding="utf-8")
    return text


def _head(about: dict[str, Any]) -> str:
    return (
        f"{about['when'][:10]}, commit {about['commit'] or 'unknown'}, {about['device']} "
        f"({about['processor']}, {about['cores']} cores), {about['threads']} thread(s), {about['rounds']} rounds"
        f"{', quick: no number to be quoted' if about['quick'] else ''}."
    )


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark that the arguments describe.

    Args:
        arguments: without the program's name.

    Raises:
        UserError: an argument is wrong, or an implementation of ours is.
    """
    chosen = _parse(arguments)
    # waiting threads that spin slow each other down several times over; torch reads this when it is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from experiments.bench.contestants import field as contestants
    from worldaction.io.recorder import setup_logging

    device = _device(chosen.device)
    torch.set_num_threads(chosen.threads)
    scale = (quick if chosen.quick else full)(chosen.rounds)
    field_ = contestants(chosen.peer, device, compiled=scale.compiled)
    setup_logging()
    logging.getLogger("torchrl").setLevel(logging.WARNING)
    begun = time.monotonic()
    results = Benchmark(scale, field_, device, _about(chosen, device, scale)).run(chosen.only or PARTS)
    results.about["seconds"] = round(time.monotonic() - begun)
    print(write(results, Path(chosen.out)))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="worldaction benchmark", description=__doc__)
    parser.add_argument("--out", default="runs/benchmark", help="folder for the table, the numbers and the figures")
    parser.add_argument(
        "--peer", action="extend", nargs="+", default=[], metavar="NAME=PATH",
        help="a checkout of lumos, dreamerv3-torch or r2dreamer, whose code is run",
    )  # fmt: skip
    parser.add_argument("--only", action="extend", nargs="+", default=[], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="everything small, in less than a minute")
    parser.add_argument("--rounds", type=int, default=9, help="turns of every contestant")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    chosen = parser.parse_args(list(arguments))
    for part in chosen.only:
        if part not in PARTS:
            raise unknown("part", part, PARTS)
    for name in ("rounds", "threads"):
        if getattr(chosen, name) < 1:
            raise UserError(f"--{name} {getattr(chosen, name)}: give 1 or more")
    return chosen


def _device(name: str) -> torch.device:
    from experiments.study.machine import device
    from experiments.study.settings import Study

    return device(Study(device=name))  # type: ignore[arg-type] # argparse has checked it


def _about(chosen: argparse.Namespace, device: torch.device, scale: Scale) -> dict[str, Any]:
    import torch

    from experiments.study.machine import commit, processor
    from worldaction.io.artefact import versions

    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": chosen.threads,
        "rounds": scale.rounds,
        "quick": chosen.quick,
        "versions": versions(),
        "scale": asdict(scale),
    }
