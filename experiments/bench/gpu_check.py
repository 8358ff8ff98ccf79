"""Everything that wants to be seen on a machine with a GPU, in one command (docs/benchmarks.md).

Kernels are built, tested and timed, and the preset `base` trains for a while; what came of it is written into one
Markdown file, ready for docs/benchmarks.md. Every part is a process of its own with the time that is left: whatever
happens in one, the next one runs. A call that was too short goes on with `--parts train`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from worldaction.errors import UserError, unknown

LOGGER = logging.getLogger("worldaction")
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0
"""Seconds that an interrupted part has to save what it has, before it is killed."""
TRAINING = ("--tasks", "open_drawer", "--data.frames", "20000", "--data.near-misses", "50")
"""Less play than `base` has, so that minutes are enough to come to the training of its world model."""


@dataclass(frozen=True)
class Outcome:
    """What a part came to.

    Attributes:
        state: "done", "failed", or "interrupted" where the time was up.
        seconds: that it took.
        text: what there is to say, in Markdown.
    """

    state: str
    seconds: float
    text: str


@dataclass(frozen=True)
class Check:
    """One call.

    Attributes:
        out: folder of the results.
        device: "cuda", or "cpu" for a rehearsal.
        end: when it must be over, by time.monotonic().
        peers: NAME=PATH, for the benchmark.
    """

    out: Path
    device: str
    end: float
    peers: tuple[str, ...] = ()

    @property
    def rehearsal(self) -> bool:
        """Whether everything is small, because there is no GPU."""
        return self.device == "cpu"

    def run(self, name: str, *arguments: str, good: Sequence[int] = (0,)) -> tuple[str, float]:
        """Run Python in a process of its own, with the time that is left.

        Args:
            name: of the part; its log is NAME.log.
            arguments: of the interpreter.
            good: exit statuses that mean success.

        Returns:
            the state, and the seconds it took.
        """
        left, begun = self.end - time.monotonic(), time.monotonic()
        if left <= PATIENCE:
            return "interrupted", 0.0
        with open(self.out / f"{name}.log", "w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            status = _within(process, left - PATIENCE)
        state = "interrupted" if status is None else "done" if status in good else "failed"
        return state, time.monotonic() - begun

    def last_lines(self, name: str, count: int = 15) -> str:
        """The end of a part's log, as a block of code."""
        path = self.out / f"{name}.log"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        return "```\n" + "\n".join(lines[-count:]) + "\n```"


def _within(process: subprocess.Popen[Any], seconds: float) -> int | None:
    """The exit status; None if the process was interrupted because the time was up."""
    try:
        return process.wait(max(seconds, 1.0))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        LOGGER.warning("%s does not end by itself and is killed", process.args)
    # workers that outlive their parent must not be left on a machine that is paid for
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        LOGGER.debug("nothing of %s is left", process.args)
    process.wait()
    return None


# Parts ----------------------------------------------------------------------------------------------------------------


def build(check: Check) -> Outcome:
    """Every implementation of the kernels is built by running it once."""
    code = f"from experiments.bench.gpu_check import kernels; print(kernels({check.device!r}))"
    state, seconds = check.run("build", "-c", code)
    log = (check.out / "build.log").read_text(encoding="utf-8") if state == "done" else ""
    return Outcome(state, seconds, log[log.find("| operation") :].strip() or check.last_lines("build"))


def kernels(device: str) -> str:
    """A table of the implementations: which one runs, why others do not, and what their first call costs.

    Args:
        device: where they are asked to run, on the sizes of the preset `quick`.
    """
    import torch

    from experiments.bench import denoising, dreams, ours
    from experiments.bench.base import DreamWorkload, Sizes, Workload
    from experiments.report.table import Table
    from worldaction.kernels import implementations, ops, typical

    asked = typical(torch.device(device))
    sizes = Sizes(**{f.name: asked.sizes[f.name] for f in fields(Sizes) if f.name in asked.sizes})
    steps, whole = Workload(sizes, asked.batch), DreamWorkload(sizes, asked.batch)
    weights, first = ours.model(sizes, asked.device).prior_weights(), ours.start(steps, asked.device)
    uniforms = ours.draws(steps, asked.device, seed=0)
    problem, _ = denoising.problem(whole, asked.device)
    given, options = dreams.given_of(whole, dreams.build_models(whole, asked.device))
    calls: dict[str, Callable[[str], Any]] = {
        "rollout": lambda name: ops.rollout(weights, *first, uniforms, unimix=sizes.unimix, force=name),
        "denoise": lambda name: ops.denoise(*problem, force=name),
        "dream": lambda name: ops.dream(*given, **options, force=name),
    }
    rows = []
    for report in implementations(asked):
        took = ""
        if report.reason is None and report.op in calls:
            begun = time.monotonic()
            with torch.no_grad():
                finite = all(bool(each.float().isfinite().all()) for each in calls[report.op](report.name))
            took = f"{time.monotonic() - begun:.2f}" if finite else "not finite"
        runs = "chosen" if report.chosen else report.reason or "can be asked for"
        rows.append((report.op, report.name, runs, took))
    return Table(("operation", "implementation", "runs", "first call, s"), rows).markdown()


def tests(check: Check) -> Outcome:
    """All tests that are marked gpu."""
    if not (ROOT / "tests").is_dir():
        return Outcome("failed", 0.0, "there are no tests here; run this from a checkout")
    options = ("-m", "gpu", "-q", "-rs", "--disable-warnings", "-p", "no:cacheprovider", "tests")
    # 5: no test was found, which is no success where there is a GPU
    state, seconds = check.run("tests", "-m", "pytest", *options, good=(0, 5) if check.rehearsal else (0,))
    return Outcome(state, seconds, check.last_lines("tests", 40 if state == "failed" else 12))


def benchmark(check: Check) -> Outcome:
    """The benchmark, on the GPU."""
    out = check.out / "benchmark"
    arguments = ["--out", str(out), "--device", check.device, *(["--quick"] if check.rehearsal else [])]
    peers = ["--peer", *check.peers] if check.peers else []
    state, seconds = check.run("benchmark", "-m", "experiments", "benchmark", *arguments, *peers)
    if state != "done":
        return Outcome(state, seconds, check.last_lines("benchmark"))
    text = (out / "benchmark.md").read_text(encoding="utf-8")
    return Outcome(state, seconds, text.replace("](", "](benchmark/").strip())


def train(check: Check) -> Outcome:
    """The preset `base`, as far as it gets; a later call goes on where this one ended."""
    run = check.out / "train"
    if (run / "config.json").exists():
        arguments = ["--resume", str(run)]
    else:
        preset = ["debug", "--device", "cpu"] if check.rehearsal else ["base", "--device", "cuda", *TRAINING]
        arguments = [*preset, "--run-dir", str(run), "--workers", str(os.cpu_count() or 1)]
    state, seconds = check.run("train", "-m", "experiments.calvin", *arguments)
    table = progress_of(run) if (run / "config.json").exists() else ""
    return Outcome(state, seconds, table + ("\n\n" + check.last_lines("train") if state == "failed" else ""))


def progress_of(run: Path) -> str:
    """How far a study has come, and how fast, in Markdown.

    Args:
        run: its folder.
    """
    from experiments.report.table import Table
    from experiments.study.settings import load_study
    from worldaction.io.recorder import read_metrics

    study = load_study(run)
    series: dict[str, list[dict[str, Any]]] = {}
    for line in read_metrics(run):
        series.setdefault(line["prefix"], []).append(line)
    sizes = study.world_model
    about = (
        f"Preset {study.preset}: {sizes.steps:,} steps of a world model with deter {sizes.deter}, "
        f"batch {sizes.batch} x {sizes.length}."
    )
    rows = [_stage(name, lines) for name, lines in series.items()]
    return f"{about}\n\n{Table(('stage', 'steps', 'steps a second', 'at the end'), rows).markdown()}"


def _stage(name: str, lines: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    first, last = lines[0], lines[-1]
    seconds = last["time"] - first["time"]
    rate = f"{(last['step'] - first['step']) / seconds:.2f}" if seconds > 0 else ""
    losses = [f"{key.removeprefix('loss/')} {value:.3g}" for key, value in last.items() if key.startswith("loss/")]
    return name, f"{last['step']:,}", rate, ", ".join(losses)


PARTS: Mapping[str, Callable[[Check], Outcome]] = {
    "build": build,
    "tests": tests,
    "benchmark": benchmark,
    "train": train,
}


# The whole ------------------------------------------------------------------------------------------------------------


def conduct(check: Check, parts: Sequence[str]) -> dict[str, Outcome]:
    """Do parts one after the other; results are written after each, beside those of earlier calls.

    Args:
        check: where, on what, how long.
        parts: of `PARTS`.

    Returns:
        the outcomes of these parts.
    """
    from experiments.bench.machine import machine
    from worldaction.io.atomic import write_json
    from worldaction.io.sealed_json import read_json

    check.out.mkdir(parents=True, exist_ok=True)
    path = check.out / "gpu_check.json"
    known: dict[str, Any] = read_json(path) if path.exists() else {"parts": {}}
    known["machine"] = machine(check.device)
    outcomes = {}
    for name, part in PARTS.items():
        if name not in parts:
            continue
        LOGGER.info("%s, with %.0f s left", name, check.end - time.monotonic())
        try:
            outcomes[name] = part(check)
        except (UserError, OSError) as error:
            outcomes[name] = Outcome("failed", 0.0, str(error))
        LOGGER.info("%s: %s after %.0f s", name, outcomes[name].state, outcomes[name].seconds)
        known["parts"][name] = asdict(outcomes[name])
        write_json(path, known)
        (check.out / "gpu_check.md").write_text(page(known), encoding="utf-8")
    return outcomes


def page(known: Mapping[str, Any]) -> str:
    """All parts that are known, in Markdown."""
    about = known["machine"]
    where = about.get("gpu", "a rehearsal without a GPU, whose numbers mean nothing")
    facts = [f"{key} {value}" for key, value in about.items() if key not in ("when", "commit", "versions", "gpu")]
    versions = [f"{name} {version}" for name, version in about["versions"].items()]
    lines = [f"## {where}", "", f"{about['when']}, commit {about['commit'] or 'unknown'}, {', '.join(facts)}."]
    lines += ["", f"{', '.join(versions)}."]
    for name in PARTS:
        if name in known["parts"]:
            part = known["parts"][name]
            lines += ["", f"### {name}: {part['state']}, {part['seconds']:.0f} s", "", part["text"]]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Run the check that the arguments describe.

    Args:
        arguments: without the program's name.

    Raises:
        UserError: there is no GPU, an argument is wrong, or a part has failed.
    """
    chosen = _parse(arguments)
    import torch

    from worldaction.io.recorder import setup_logging

    if not chosen.cpu and not torch.cuda.is_available():
        raise UserError("no CUDA GPU is available to torch; run this where there is one, or rehearse it with --cpu")
    setup_logging()
    device = "cpu" if chosen.cpu else "cuda"
    end = time.monotonic() + 60 * chosen.minutes
    check = Check(Path(chosen.out).resolve(), device, end, tuple(chosen.peer))
    outcomes = conduct(check, chosen.parts)
    print(check.out / "gpu_check.md")
    if failed := [name for name, outcome in outcomes.items() if outcome.state == "failed"]:
        raise UserError(f"{', '.join(failed)} failed; see {check.out / failed[0]}.log")
    if left := [name for name, outcome in outcomes.items() if outcome.state == "interrupted"]:
        LOGGER.info("the time was up; go on with --parts %s", ",".join(left))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="worldaction gpu-check", description=__doc__)
    parser.add_argument("--out", default="runs/gpu_check", help="folder for the results; a later call adds to them")
    parser.add_argument("--minutes", type=float, default=10.0, help="time limit of all parts together")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--peer", action="extend", nargs="+", default=[], metavar="NAME=PATH", help="see the benchmark")
    parser.add_argument("--cpu", action="store_true", help="rehearse everything without a GPU, small")
    chosen = parser.parse_args(list(arguments))
    chosen.parts = [part for part in chosen.parts.split(",") if part]
    for part in chosen.parts:
        if part not in PARTS:
            raise unknown("part", part, PARTS)
    if not 0 < chosen.minutes < 24 * 60:
        raise UserError(f"--minutes {chosen.minutes}: give more than 0 and less than a day")
    return chosen
