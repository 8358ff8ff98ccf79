"""One page about a run, written from the files in its folder and from nothing else, so that it can be written again.

What it reads (each may be missing; then its part is left out):

`summary.json`, the verdict for machines. Rates and intervals are shares in [0, 1], intervals [low, high] at 95 %:

    {"tasks": {name: {"n": int,                                     episodes of each policy, all seeds together
                      "bc":  {"successes": int, "rate", "interval"},  in the simulator
                      "ppo": {"successes": int, "rate", "interval"},  under the name of its update, see "improved"
                      "difference": {"value", "interval"},          PPO - BC, paired by start state
                      "imagined": {"bc", "ppo"},                    in the world model
                      "limit"?, "within"?, "time"?, "bc_other"?, "difference_stochastic"?, "samplers"?, "fair"?,
                      "oracle"?, "judged"?, "real"?:                see docs/metrics.md, "Success of policies"
                      "starts"?: int,                               first frames, where jurors judge
                      "per_juror"?: [{"juror", "n", "bc", "ppo", "difference"}],      and what each says
                      "per_seed": [{"seed", "bc", "ppo", "imagined_bc", "imagined_ppo",
                                    "iterations",                   of the update, the last of which learned nothing
                                    "kept": int | None,             of them, those that the policy learned from
                                    "unchanged"?: bool,             whether it did what the clone does, step for step
                                    "verdicts"?:                    of dreams on held-out attempts, see docs/metrics.md
                                    "stop_reason"}]}},
     "average": {"bc", "ppo", "difference": {"value", "interval"}, "imagined": {"bc", "ppo"}},
     "world_model": {"psnr": {camera: [by horizon, from 1]}, "ssim"?: the same,
                     "moving"?: {camera: {"share", "model", "still", "average": [by horizon]}},
                     "per_seed"?: [{"probes": {where the latent comes from: {probe: score}}}],
                     "losses": [specification]},
     "jurors"?: {"models": int, "held_out": episodes,               of recorded data: who judges, and by which attempts
                 "tasks": {name: {"succeeded" | "failed": {"attempts", "rate"}}}},    that are known they were tried
     "improved": what the improved policy is called, "ppo" by default, "env"?: the run's own simulator,
     "seeds": [int], "settings": hash, "renderer", "commit", "seconds", "cpu_seconds", "preset"}

Metrics (`worldaction.io.recorder.read_metrics`), here as prefix/name: `seed0/world_model/loss/kl` and
`.../gradient_share/kl` by gradient step; `seed0/open_drawer/imagined/success` and `.../ppo/divergence` by PPO
iteration, from 1, of the policy with which it began; `.../real/success` (each of `evaluation.curve_episodes` episodes,
see config.json) by the iterations that are done, from 0. `config.json` and `env.json`, settings and versions.
`evaluation/**/*.json`, of each policy the list `success`, by start state. `videos/**/*.mp4`, those named open_loop*
by the world model, and the PNG beside each.

What it writes: `report.html` and, for every figure, `curves/<name>.png` and `.csv`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

from experiments.report.comparison.numbers import mean
from experiments.report.comparison.page import write_comparison
from experiments.report.figures import (
    Plot,
    Point,
    SeedCurve,
    TaskCurve,
    comparison,
    open_loop_curves,
    panels,
    success_curves,
)
from experiments.report.outcomes import OTHER, recorded
from experiments.report.over_time import over_time
from experiments.report.pages.page import details, figure, film, heading, made_by, section, squares, write_page
from experiments.report.recorded.jurors import judge_of, jurors_of, truth_of
from experiments.report.recorded.known import section_html
from experiments.report.results import console_table, home_of, result_tables
from experiments.report.samplers import chosen, sampler_name, which_samplers
from experiments.report.statistics import wilson
from experiments.report.table import DASH, Cell, Table, label, number, percent, words
from experiments.report.verdict import (
    STOPS,
    comparisons,
    improved_of,
    kept_of,
    overall,
    step_limits,
    verdict,
    warnings,
)
from worldaction.errors import UserError
from worldaction.io.recorder import OWN_KEYS, read_metrics
from worldaction.io.sealed_json import read_json

__all__ = ["RunFiles", "console_table", "plots", "verdict", "write_report"]

_ABOUT_RESULTS = """Success in the simulator{within}. Both policies start from the same n start states, which neither
training nor the choice of the policy has seen."""
_ABOUT_REPLAYS = """Imagined success{within}: of n replays of each policy's dreams by jurors. Dreams of both policies
begin at the same first frames of held-out attempts, several at each, and every dream is replayed by every juror."""
_ABOUT_INTERVALS = """Brackets are 95 % intervals: Wilson's for rates, Newcombe's for paired differences, their
square-and-add for averages, with episodes of several seeds from one start state counted as the cluster that they are.
They speak for these trained policies on other start states, not for other seeds."""
_ABOUT_TIME = """Where a line ends higher there is more skill; where it only rises earlier, more speed. Dotted: the step
limits of the table below, of which 72 is that of papers on CALVIN. Bands are pointwise 95 % intervals."""
_ABOUT_TIME_IN_REPLAYS = """Replays in which jurors see success within so many control steps. Dotted: the step limits
of the table below. Bands are pointwise 95 % intervals."""
_ABOUT_COMPARISON = """The grey bar goes from BC to the improved policy."""
_ABOUT_CURVES = """Where the orange line leaves the blue dots behind, the policy learns to please the model, not to do
the task. The horizontal axis counts the iterations of learning that are behind the policy. Nothing was decided by the
blue dots; their start states are not those of the final policy's."""
_ABOUT_CURVES_OF_RECORDINGS = """The orange line is what the policy learns from, dreams of its own model, and nothing
beside it says how much of that is so. The horizontal axis counts the iterations of learning that are behind the policy.
The grey line and the diamond are jurors' replays of BC and of the final policy."""
_ABOUT_CURVE_SAMPLER = """Both lines are of the policy under its stochastic sampler, so at 0 they show the stochastic
clone; the grey line and band are BC under the sampler that it is evaluated with."""
_ABOUT_OPEN_LOOP = """Frames decoded from latents that were rolled forward by the recorded actions alone, against the
true frames of play that the model was not trained on."""
_ABOUT_MOVING = """Likeness of imagined frames on those pixels that changed since the last frame that was seen, beside
two pictures that need no model. A model that is no better than they are does not draw what moves."""
_ABOUT_DREAMED = """In each row first the recording of an attempt that was held out, then what policies dream from its
first frame on, drawn by the world model that they act on. A frame turns green where that model sees success, or the
recording says so, and red where it does not. Jurors see success in their own replay of the same actions."""
_ABOUT_PROBES = """What a linear probe reads off the latents: R2, of which 1 is perfect and 0 no better than the mean,
and AUROC, of which 1 is perfect and 0.5 a guess."""

TRAINING: Final = {"loss": "Losses", "gradient_share": "Share of each loss in the gradient at the encoder"}
"""Metrics of the world model that are drawn by gradient step, and their titles."""

Json = dict[str, Any]
Metrics = dict[str, list[Point]]


@dataclass(frozen=True)
class RunFiles:
    """What lies in a run folder, as plain values."""

    folder: Path
    summary: Json
    config: Json
    env: Json
    metrics: Metrics

    @classmethod
    def read(cls, folder: Path) -> RunFiles:
        """Read what there is.

        Raises:
            UserError: the folder holds no run, or a file in it is damaged.
        """
        if not (folder / "config.json").exists() and not (folder / "summary.json").exists():
            raise UserError(f"{folder} holds no run (no config.json, no summary.json); give the folder of a run")
        summary, config, env = (_json(folder / f"{name}.json") for name in ("summary", "config", "env"))
        return cls(folder, summary, config, env, _metrics(folder))

    @property
    def tasks(self) -> dict[str, Json]:
        """The evaluated tasks; none in a run of the world model alone."""
        tasks: dict[str, Json] = self.summary.get("tasks") or {}
        return tasks

    @property
    def recorded_as(self) -> str:
        """What the update's metrics are recorded under: the name of its class, which its file may write otherwise."""
        recorded = (re.fullmatch(r"seed\d+/[^/]+/([^/]+)/divergence", path) for path in self.metrics)
        return next((found[1] for found in recorded if found), improved_of(self.summary))

    @property
    def improved(self) -> str:
        """What the improved policy is called, by its update; where there is no summary yet, as its metrics are."""
        return improved_of(self.summary) if self.summary else self.recorded_as


def write_report(run_folder: Path) -> Path:
    """Write `report.html` of a run.

    Args:
        run_folder: the run; parts that are missing are left out of the page.

    Returns:
        the page's path.

    Raises:
        UserError: the folder holds no run, or a file in it is damaged.
    """
    run = RunFiles.read(Path(run_folder))
    if "arms" in run.summary:
        return write_comparison(run.folder)
    said = verdict(run.summary) if run.summary else "No summary yet: this run was interrupted or is still going on."
    drawn = plots(run)
    return write_page(
        run.folder / "report.html",
        f"worldaction: {run.folder.name}",
        [
            heading("report", said, warnings(run.summary), run.folder, run.summary, run.config, run.env),
            section("What is known, and what is not", section_html(run.summary)),
            _results(run, drawn),
            _curves(run, drawn),
            _episodes(run),
            section("Rollouts", _about_films(run), *_films(run, open_loop=False)),
            _world_model(run, drawn),
            made_by(run.config, run.env),
        ],
    )


# --- figures ----------------------------------------------------------------------------------------------------------


def plots(run: RunFiles) -> dict[str, Plot]:
    """Every figure of a run's page, by the name of its files."""
    model, curves = run.summary.get("world_model") or {}, _task_curves(run)
    found: dict[str, Plot | None] = {
        "over_time": _over_time(run),
        "comparison": _comparison(run),
        "success": success_curves(curves, policy=run.improved, truth=truth_of(run.summary)) if curves else None,
    }
    for task, series in _diagnostics(run).items():
        found[_diagnostics_of(run, task)] = panels(series, x_label=f"{label(run.improved)} iteration")
    found["open_loop"] = open_loop_curves(model["psnr"], model.get("ssim")) if model.get("psnr") else None
    for kind in TRAINING:
        series = _by_task(run, rf"(?:seed(\d+)/)?()world_model/{kind}/(.+)").get("", {})
        found[kind] = panels(series, x_label="gradient step") if series else None
    return {name: plot for name, plot in found.items() if plot is not None}


def _comparison(run: RunFiles) -> Plot | None:
    tasks = comparisons(run.summary)
    if not tasks:
        return None
    whole = overall(run.summary) if len(tasks) > 1 else None
    pairs = {name: (task.bc, task.improved) for name, task in tasks.items()}
    average = (whole.bc, whole.improved) if whole else None
    return comparison(pairs, average, policy=run.improved, judge=judge_of(run.summary))


def _diagnostics(run: RunFiles) -> dict[str, dict[str, dict[str, list[Point]]]]:
    """What the update recorded, by task."""
    return _by_task(run, rf"seed(\d+)/([^/]+)/{re.escape(run.recorded_as)}/([^/]+)")


def _diagnostics_of(run: RunFiles, task: str) -> str:
    return f"{run.improved}_{task}"


# --- sections ---------------------------------------------------------------------------------------------------------


def _results(run: RunFiles, drawn: Mapping[str, Plot]) -> str:
    if not comparisons(run.summary):
        return ""
    who = label(run.improved)
    first, *more = result_tables(run.summary, unit="", spell=words)
    replays = bool(jurors_of(run.summary))
    about, about_time = (_ABOUT_REPLAYS, _ABOUT_TIME_IN_REPLAYS) if replays else (_ABOUT_RESULTS, _ABOUT_TIME)
    title = f"Success of BC and {who} against control steps, with 95 % bands"
    return section(
        f"BC against {who} in imagination",
        f"<p>{about.format(within=_within(run.tasks))}</p>",
        f"<p>{acting}</p>" if (acting := which_samplers(run.tasks, run.improved, run.config)) else "",
        first.html(),
        f"<p>{_ABOUT_INTERVALS}</p>",
        figure(run.folder, "over_time", timed, title, about_time) if (timed := drawn.get("over_time")) else "",
        figure(
            run.folder, "comparison", drawn["comparison"], f"BC and {who} by task, with intervals", _ABOUT_COMPARISON
        ),
        *(f"<h3>{escape(table.title)}</h3><p>{escape(table.about)}</p>{table.html('folded')}" for table in more),
        _seeds_table(run),
    )


def _within(tasks: Mapping[str, Json]) -> str:
    limits = sorted({task["limit"] for task in tasks.values() if "limit" in task})
    return f" within {' or '.join(map(str, limits))} control steps" if limits else ""


def _over_time(run: RunFiles) -> Plot | None:
    """None for runs from before steps were told within a limit."""
    names = {name: name for name in ("bc", run.improved)}
    told = {name: [s["seed"] for s in task["per_seed"]] for name, task in run.tasks.items() if task.get("within")}
    where = run.folder / "evaluation"
    if not told or not all((where / f"{name}-seed{seed}.json").exists() for name in told for seed in told[name]):
        return None
    tasks = {name: recorded(run.folder, name, seeds, names) for name, seeds in told.items()}
    marks = [int(steps) for steps in step_limits(next(iter(run.tasks.values())))]
    return over_time(tasks, marks, home=home_of(run.summary))


def _seeds_table(run: RunFiles) -> str:
    improved, who = run.improved, label(run.improved)
    rows = [
        (
            words(name),
            str(seed["seed"]),
            ", ".join(filter(None, (sampler_name(seed.get("sampler") or DASH, run.config), chosen(seed)))),
            *(percent(seed.get(key)) for key in ("bc", improved, "imagined_bc", f"imagined_{improved}")),
            *(str("" if count is None else count) for count in (seed.get("iterations"), kept_of(seed))),
            _stop(seed.get("stop_reason") or ""),
        )
        for name, task in run.tasks.items()
        for seed in task.get("per_seed", [])
    ]
    columns = ("task", "seed", "BC's sampler", "BC", who, "imagined BC", f"imagined {who}")
    ends = ("iterations run", "iterations kept", f"why {who} ended")
    return details("Every seed", Table((*columns, *ends), rows).html("text")) if rows else ""


def _stop(reason: str) -> str:
    """The rule that ended an update, by the name of its option, and what it says."""
    return f"{reason}: {STOPS[reason]}" if reason in STOPS else reason


def _curves(run: RunFiles, drawn: Mapping[str, Plot]) -> str:
    parts = []
    if success := drawn.get("success"):
        about = _ABOUT_CURVES_OF_RECORDINGS if jurors_of(run.summary) else _ABOUT_CURVES
        parts = [
            f"<p>{about}{' ' + _ABOUT_CURVE_SAMPLER if _has_deterministic(run) else ''}</p>",
            figure(run.folder, "success", success, "Success by iterations of learning"),
        ]
    inside, who = "", label(run.improved)
    for task in _diagnostics(run):
        name = _diagnostics_of(run, task)
        shown = figure(run.folder, name, drawn[name], f"{who} diagnostics of {task}")
        inside += f"<h3>{escape(words(task))}</h3>{shown}"
    return section(f"Success while {who} trains", *parts, details(f"{who} diagnostics", inside))


def _has_deterministic(run: RunFiles) -> bool:
    """Whether the clone could be evaluated under another sampler than the one that it was trained with."""
    return any(task.get("bc_other") for task in run.tasks.values())


def _episodes(run: RunFiles) -> str:
    rows: list[tuple[str, ...]] = []
    for path in sorted((run.folder / "evaluation").rglob("*.json")):
        found = _json(path)
        task, seed = found.get("task") or path.stem, str(found.get("seed", ""))
        where = str(found.get("env") or home_of(run.summary)).rpartition("/")[2]
        where += f", {path.parent.name}" if path.parent.name.startswith("real") else ""
        for name, part in found.items():
            if isinstance(part, dict) and isinstance(part.get("success"), list):
                outcomes = [bool(success) for success in part["success"]]
                count, shown = f"{sum(outcomes)} of {len(outcomes)}", Cell(squares(outcomes), "html")
                rows.append((words(task), seed, where, _policy_name(name, found), count, shown))
    if not rows:
        return ""
    start = "first frame" if jurors_of(run.summary) else "start state"
    columns = ("task", "seed", "simulator", "policy", "successes", f"in order of the {start}s")
    squared = details(f"Outcomes by {start}: a filled square is a success", Table(columns, rows).html("text"))
    return section("Every episode", squared)


def _policy_name(name: str, evaluation: Json) -> str:
    """A policy of an evaluation as it is read, BC with its sampler."""
    sampler = evaluation.get("sampler")
    if name == OTHER:
        return "BC, other sampler"
    return f"BC, {sampler}" if name == "bc" and sampler and evaluation.get(OTHER) else label(name)


def _world_model(run: RunFiles, drawn: Mapping[str, Plot]) -> str:
    model = run.summary.get("world_model") or {}
    parts = []
    if plot := drawn.get("open_loop"):
        parts.append(figure(run.folder, "open_loop", plot, "Open-loop likeness by horizon", _ABOUT_OPEN_LOOP))
    parts += _films(run, open_loop=True)
    for kind, title in TRAINING.items():
        if plot := drawn.get(kind):
            parts.append(f"<h3>{title}</h3>" + figure(run.folder, kind, plot, f"{title} by gradient step"))
    parts.append(_moving(model.get("moving") or {}))
    parts.append(_probes([s["probes"] for s in model.get("per_seed") or [] if s.get("probes")]))
    return section("World model", *parts)


def _moving(cameras: Mapping[str, Mapping[str, Sequence[float | None]]]) -> str:
    """A row a camera: likeness on the pixels that move, means over the horizon, of the model and of two guesses."""
    if not cameras:
        return ""
    names = ("model", "still", "average")
    rows = [
        (words(camera), percent(mean(found["share"])), *(number(mean(found[name]), 1) for name in names))
        for camera, found in cameras.items()
    ]
    columns = ("PSNR on pixels that move, dB", "of all pixels", "model", "last frame seen", "average frame")
    return f"<h3>Where something moves</h3><p>{_ABOUT_MOVING}</p>{Table(columns, rows).html()}"


def _probes(seeds: Sequence[Mapping[str, Mapping[str, float | None]]]) -> str:
    """A row a probe, a column for every place its latents come from, the mean over the seeds in it."""
    if not seeds:
        return ""
    places = list(seeds[0])
    names = list(seeds[0][places[0]])
    rows = [(words(name), *(_score([seed[place][name] for seed in seeds]) for place in places)) for name in names]
    found = Table(("linear probe of the true state", *map(words, places)), rows)
    return f"<h3>What the latents know</h3><p>{_ABOUT_PROBES}</p>{found.html()}"


def _about_films(run: RunFiles) -> str:
    """What is to be seen where dreams are filmed."""
    return f"<p>{_ABOUT_DREAMED}</p>" if jurors_of(run.summary) and _films(run, open_loop=False) else ""


def _films(run: RunFiles, *, open_loop: bool) -> list[str]:
    paths = sorted((run.folder / "videos").rglob("*.mp4"))
    return [film(p, run.folder) for p in paths if p.name.startswith("open_loop") == open_loop]


# --- files ------------------------------------------------------------------------------------------------------------


def _json(path: Path) -> Json:
    if not path.exists():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object; delete it and let the run write it again")
    return value


def _metrics(folder: Path) -> Metrics:
    """Every metric's points in order of their steps; of two values at a step, as after a resume, the later one."""
    values: dict[str, dict[float, float]] = {}
    for line in read_metrics(folder):
        for name, value in line.items():
            if name not in OWN_KEYS:
                values.setdefault(f"{line['prefix']}/{name}", {})[line["step"]] = math.nan if value is None else value
    return {name: [Point(step, found[step]) for step in sorted(found)] for name, found in values.items()}


def _by_task(run: RunFiles, pattern: str) -> dict[str, dict[str, dict[str, list[Point]]]]:
    """Metrics whose path fits, as task -> metric -> seed -> points. The pattern's groups: seed, task, metric."""
    found: dict[str, dict[str, dict[str, list[Point]]]] = {}
    for path, line in run.metrics.items():
        match = re.fullmatch(pattern, path)
        if match:
            seed, task, metric = match.groups()
            found.setdefault(task, {}).setdefault(metric, {})[f"seed {seed or 0}"] = line
    return found


def _task_curves(run: RunFiles) -> list[TaskCurve]:
    """One curve a task whose policy was improved, whether or not it was evaluated."""
    measured = _by_task(run, r"seed(\d+)/([^/]+)/((?:imagined|real)/success)")
    episodes = (run.config.get("evaluation") or {}).get("curve_episodes") or 0
    compared = comparisons(run.summary)
    curves = []
    for task, series in measured.items():
        kept = {f"seed {s['seed']}": s for s in run.tasks.get(task, {}).get("per_seed", [])}
        imagined, real = series.get("imagined/success", {}), series.get("real/success", {})
        seeds = [
            SeedCurve(
                int(seed.removeprefix("seed ")),
                # dreamed before the iteration learned from them
                [point._replace(x=point.x - 1) for point in imagined.get(seed, [])],
                _with_intervals(real.get(seed, []), episodes),
                kept_of(kept.get(seed, {})),
                _stop(kept.get(seed, {}).get("stop_reason") or ""),
            )
            for seed in sorted(imagined.keys() | real.keys())
        ]
        result = compared.get(task)
        curves.append(TaskCurve(task, seeds, result.bc if result else None, result.improved if result else None))
    return curves


def _with_intervals(line: Sequence[Point], episodes: int) -> list[Point]:
    if episodes < 1:
        return list(line)
    return [Point(x, y, wilson(round(y * episodes), episodes)) for x, y, _ in line]


def _score(values: Sequence[float | None]) -> str:
    """Mean of a probe's scores; how far an R2 is below 0 says nothing but that it is."""
    known = mean(values)
    return DASH if known is None else "below 0" if known < 0 else f"{known:.2f}"
