"""What a comparison of losses came to: a ranked table for terminals and a page, with curves; and losses.json.

    {"arms": {name: {"strength": of the distractors, "losses", "measures": {name: mean over the seeds or None},
                     "share": of the gradient at the embedding, of what the arm adds, mean over the run's second half,
                     "milliseconds": a training step, "rank": mean over the measures among arms of its strength,
                     "gain"?: {"probes" | "bc" | "ppo": {"value", "interval"}},       against base, with two seeds
                     "better"?: {"probes" | "bc" | "ppo": {"value", "interval"}}}}}   P(better than base)

Measures: linear probes on latents (mean of R2 where positive and AUROC) seen, 1 to 8 frames ahead and later; how far
the hand is from where a probe believes it, late, in mm; PSNR of the last frame, dB; error of actions read off imagined
pictures, in shares of the best constant guess; success of BC and of PPO. Rank: the mean over them, 1 is best. Share: of
the gradient at the embedding, of what the arm adds. ms: a training step. Against base: the mean difference, by seed and
probe or task, and P(better), how likely a training of the arm beats one of the base; intervals from drawing seeds anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from experiments.losses import DISTRACTED
from experiments.report.figures import Point, panels, save_figure
from experiments.report.page import page, picture, section, table
from experiments.report.statistics import Estimate, probability_of_improvement, seed_bootstrap
from experiments.report.summary import estimate
from experiments.study.run import Run
from worldaction.io.artefact import read_json, replacing, write_json
from worldaction.io.recorder import read_metrics

Json = dict[str, Any]


class Measure(NamedTuple):
    """One number of an arm."""

    title: str
    digits: int
    sign: int
    """1 where more is better, -1 where less is."""


MEASURES: Final = {
    "seen": Measure("probes seen", 2, 1),
    "imagined_8": Measure("probes 1-8 ahead", 2, 1),
    "imagined_late": Measure("probes later", 2, 1),
    "hand": Measure("hand off, mm", 1, -1),
    "psnr": Measure("PSNR last, dB", 1, 1),
    "action": Measure("action error", 2, -1),
    "bc": Measure("BC", 2, 1),
    "ppo": Measure("PPO", 2, 1),
}


KINDS: Final = {"loss": "loss", "gradient_share": "share of the gradient"}
"""Of the recorded figures, those that are drawn."""


def write_losses(folder: Path) -> tuple[Path, str]:
    """Write losses.json and losses.html of a comparison, as far as it has come.

    Args:
        folder: the study's, with its summary.json.

    Returns:
        the page, and the table as text.
    """
    run, summary = Run.open(folder), read_json(folder / "summary.json")
    arms = {name: _arm(arm, summary["arms"].get(name, {})) for name, arm in run.arms().items()}
    for strength in dict.fromkeys(arm["strength"] for arm in arms.values()):
        _rank({name: arm for name, arm in arms.items() if arm["strength"] == strength})
    rows = _rows(arms, likely=True)
    path = folder / "losses.html"
    with replacing(path) as temporary:
        temporary.write_text(_page(folder, run, arms), encoding="utf-8")
    for arm in arms.values():
        arm.pop("tables")
    write_json(folder / "losses.json", {"arms": arms, "seeds": list(run.study.seeds), "commit": summary["commit"]})
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return path, "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


# Numbers --------------------------------------------------------------------------------------------------------------


def _arm(run: Run, compared: Mapping[str, Any]) -> Json:
    """Everything about one arm."""
    seeds = [s for s in run.study.seeds if run.fidelity(s).complete]
    results = [run.fidelity(seed).results for seed in seeds]
    found = [_measures(one) for one in results]
    success = {p: (compared.get("average") or {}).get(p, {}).get("value") for p in ("bc", "ppo")}
    seconds = (compared.get("seconds") or {}).get("world_model")
    return {
        "strength": run.study.stress.distractors,
        "losses": list(run.study.losses),
        "measures": {key: _mean(one.get(key) for one in found) for key in MEASURES if key not in success} | success,
        "share": _share(run),
        "milliseconds": 1000 * seconds / run.study.world_model.steps if seconds else None,
        # [seeds, scores]
        "tables": {"probes": [_probes(one) for one in results]} | _success(compared),
    }


def _measures(results: Mapping[str, Any]) -> dict[str, float | None]:
    """Of one seed; what was not measured is None."""
    probes = {
        place: _mean(None if s is None else max(s, 0.0) for s in scores.values())
        for place, scores in results["probes"].items()
    }
    hand = _path(results, "tcp_error", "probe", "imagined_late", "median")
    action = _path(results, "action_probe", "pictures", "mlp", "imagined_8", "translation", "relative")
    return {**probes, "hand": hand, "action": action, "psnr": _mean(v[-1] for v in results.get("psnr", {}).values())}


def _path(values: Any, *names: str) -> float | None:
    for name in names:
        values = values.get(name) if isinstance(values, Mapping) else None
    return None if values is None else float(values)


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _probes(results: Mapping[str, Any]) -> list[float]:
    """All scores; one that could not be given, where a light was never on, is nobody's gain."""
    places = (results["probes"].get(place, {}) for place in ("seen", "imagined_8", "imagined_late"))
    return [max(score or 0.0, 0.0) for scores in places for score in scores.values()]


def _success(compared: Mapping[str, Any]) -> dict[str, list[list[float]]]:
    tasks = list((compared.get("tasks") or {}).values())
    # in a study that is still at work, or was interrupted, some tasks have more seeds than others
    if len({tuple(seed["seed"] for seed in task["per_seed"]) for task in tasks}) != 1:
        return {}
    return {
        p: [[s[p] for s in row] for row in zip(*(t["per_seed"] for t in tasks), strict=True)] for p in ("bc", "ppo")
    }


def _share(run: Run) -> float | None:
    """What the arm adds to reconstruction and KL: its share of the gradient at the embedding."""
    half = run.study.world_model.steps / 2
    shares = []
    for line in read_metrics(run.folder):
        found = {k.partition("/")[2]: v for k, v in line.items() if k.startswith("gradient_share/")}
        if found and line["step"] >= half:
            shares.append(sum(value for name, value in found.items() if name not in ("reconstruction", "kl")))
    return _mean(shares)


def _rank(arms: Mapping[str, Json]) -> None:
    """Add mean ranks, and how likely each arm beats the first, to arms of one strength."""
    first, *_ = arms.values()
    ranks: dict[str, list[float]] = {name: [] for name in arms}
    for key, measure in MEASURES.items():
        values = {name: arm["measures"][key] for name, arm in arms.items() if arm["measures"][key] is not None}
        for name, value in values.items():
            better = sum(measure.sign * (other - value) > 0 for other in values.values())
            equal = sum(other == value for other in values.values())
            ranks[name].append(better + (equal + 1) / 2)
    for name, arm in arms.items():
        arm["rank"] = _mean(ranks[name])
        pairs = {key: (t, first["tables"].get(key, [])) for key, t in arm["tables"].items()}
        enough = {key: (x, y) for key, (x, y) in pairs.items() if len(x) > 1 and len(y) > 1 and arm is not first}
        if enough:
            arm["gain"] = {key: estimate(_gain(x, y)) for key, (x, y) in enough.items()}
            arm["better"] = {key: estimate(probability_of_improvement(x, y)) for key, (x, y) in enough.items()}


def _gain(x: list[list[float]], y: list[list[float]]) -> Estimate:
    """Mean of x - y, which are [seeds, scores] of models that share their play and, by seed, their first weights."""
    seeds = min(len(x), len(y))
    return seed_bootstrap(np.subtract(x[:seeds], y[:seeds]), lambda scores: float(scores.mean()))


# Table and page -------------------------------------------------------------------------------------------------------


def _rows(arms: Mapping[str, Json], *, likely: bool) -> list[tuple[str, ...]]:
    """Head and rows, the best of each strength first; measures that nobody has are left out.

    Args:
        arms: what is known of them.
        likely: with P(better).
    """
    known = {key: m for key, m in MEASURES.items() if any(arm["measures"][key] is not None for arm in arms.values())}
    compared = list(dict.fromkeys(key for arm in arms.values() for key in arm.get("better", ())))
    better = compared if likely else []
    against = (f"{key} against base" for key in compared)
    chances = (f"P(better) {key}" for key in better)
    head = ("arm", "rank", *(m.title for m in known.values()), *against, *chances, "share", "ms")
    order = sorted(arms, key=lambda name: (arms[name]["strength"], arms[name]["rank"] or np.inf))
    return [head, *(_row(name, arms[name], known, compared, better) for name in order)]


def _row(
    name: str, arm: Json, known: Mapping[str, Measure], compared: Sequence[str], better: Sequence[str]
) -> tuple[str, ...]:
    return (
        name,
        _number(arm["rank"], 1),
        *(_number(arm["measures"][key], measure.digits) for key, measure in known.items()),
        *(_estimate(arm.get("gain", {}).get(key), "+.2f") for key in compared),
        *(_estimate(arm.get("better", {}).get(key), ".2f") for key in better),
        _number(arm["share"], 2),
        _number(arm["milliseconds"], 0),
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _estimate(found: Mapping[str, Any] | None, form: str) -> str:
    if found is None:
        return "-"
    low, high = found["interval"]
    return f"{found['value']:{form}} [{low:{form}}, {high:{form}}]"


def _page(folder: Path, run: Run, arms: Mapping[str, Json]) -> str:
    series = _series(run)
    curves = ""
    if series:
        plot = panels(series, x_label="training step", family=lambda line: line.partition(":")[0])
        png = save_figure(plot.figure, folder / "curves" / "losses.png", plot.data)
        curves = picture(png, "losses and shares of the gradient while world models train", csv="curves/losses.csv")
    about = (__doc__ or "").partition("Measures:")[2]
    strengths = dict.fromkeys(arm["strength"] for arm in arms.values())
    return page(
        f"losses: {folder.resolve().name}",
        [
            f"<h1>Losses: {escape(folder.resolve().name)}</h1>",
            *(section(f"Who helps, distractors {strength:g}", _table(arms, strength)) for strength in strengths),
            f"<p>Measures: {escape(about)}</p>",
            section("While they train", curves),
        ],
    )


def _table(arms: Mapping[str, Json], strength: float) -> str:
    """Of one strength, without it in the names."""
    some = {name.partition(DISTRACTED)[0]: arm for name, arm in arms.items() if arm["strength"] == strength}
    head, *rows = [[escape(cell) for cell in row] for row in _rows(some, likely=False)]
    return table(head, rows, kind="folded")


def _series(run: Run) -> dict[str, dict[str, list[Point]]]:
    """Of every added loss, its values and shares by step: a panel each, one line a strength and seed."""
    found: dict[str, dict[str, list[Point]]] = {}
    for name, arm in run.arms().items():
        short, strength = name.partition(DISTRACTED)[0], f"distractors {arm.study.stress.distractors:g}"
        for line in read_metrics(arm.folder) if arm.folder.exists() else ():
            for key, value in line.items():
                kind, _, loss = key.partition("/")
                if kind in KINDS and loss not in ("reconstruction", "kl"):
                    # of an arm that is not named after what it adds, both
                    whose = short if short.startswith(loss) else f"{short}, {loss}"
                    panel = found.setdefault(f"{whose}: {KINDS[kind]}", {})
                    panel.setdefault(f"{strength}: {line['prefix']}", []).append(Point(line["step"], value))
    return found
