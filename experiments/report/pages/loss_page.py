"""Losses ranked: what the comparison of a study of `experiments.losses` does not say, as a page and losses.json.

{"arms": {name: {"strength": of the distractors, "losses", "measures": {name: mean over the seeds or None},
                 "share": of the gradient at the embedding, of what the arm adds, mean over the run's second half,
                 "milliseconds": a training step, "rank": mean over the measures among arms of its strength,
                 "gain"?: {"probes" | "bc" | "ppo": {"value", "interval"}},       against base, with two seeds
                 "better"?: {"probes" | "bc" | "ppo": {"value", "interval"}}}}}   P(better than base)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from experiments.report import DISTRACTED
from experiments.report.comparison.numbers import fidelity, mean, scores
from experiments.report.comparison.tables import policies_of
from experiments.report.figures import Point, panels
from experiments.report.pages.page import figure, section, write_page
from experiments.report.statistics import Estimate, estimate_of, probability_of_improvement, seed_bootstrap
from experiments.report.summary import estimate
from experiments.report.table import Table, label, number
from experiments.report.table import estimate as shown
from experiments.study.run import Run
from worldaction.io.atomic import write_json
from worldaction.io.recorder import read_metrics
from worldaction.io.sealed_json import read_json

Json = dict[str, Any]


class Measure(NamedTuple):
    """One number of an arm."""

    title: str
    digits: int
    sign: int
    """1 where more is better, -1 where less is."""


OF_MODELS: Final = {
    "seen": Measure("probes seen", 2, 1),
    "imagined_8": Measure("probes 1-8 ahead", 2, 1),
    "imagined_late": Measure("probes later", 2, 1),
    "hand": Measure("hand off, mm", 1, -1),
    "psnr": Measure("PSNR last, dB", 1, 1),
    "action": Measure("action error", 2, -1),
}
"""Of world models; success of the policies is measured besides."""
USUAL = ("reconstruction", "kl")
"""What stands in every arm."""
KINDS: Final = {"loss": "loss", "gradient_share": "share of the gradient"}
"""Of the recorded figures, those that are drawn."""
_ABOUT = """Measures: linear probes on latents (mean of R2 where positive and AUROC), seen, 1-8 frames ahead and later;
how far the hand is from where a probe believes it, late, in mm; PSNR of the last frame, dB; error of actions read off
imagined pictures, in shares of the best constant guess; success of the policies. Rank: the mean over them, 1 is best.
Share: of the gradient at the embedding, of what the arm adds. ms: a training step. Against base: the mean difference,
by seed and probe or task, with an interval from drawing seeds anew. P(better), in losses.json: how likely a training of
the arm beats one of the base. A dash after a number: of fewer than three seeds no interval is known."""


def write_losses(folder: Path) -> tuple[Path, str]:
    """Write losses.json and losses.html of a comparison, as far as it has come.

    Args:
        folder: the study's, with its summary.json.

    Returns:
        the page, and the table as text.
    """
    run, summary = Run.open(folder), read_json(folder / "summary.json")
    policies = policies_of(summary)
    measures = OF_MODELS | {policy: Measure(label(policy), 2, 1) for policy in policies}
    compared = {name: summary["arms"].get(name, {}) for name in run.arms()}
    arms = {name: _arm(arm, compared[name], policies) for name, arm in run.arms().items()}
    samples = {name: _samples(arm, compared[name], policies) for name, arm in run.arms().items()}
    for strength in dict.fromkeys(arm["strength"] for arm in arms.values()):
        same = {name: arm for name, arm in arms.items() if arm["strength"] == strength}
        _rank(same, measures)
        _against_base(same, samples)
    write_json(folder / "losses.json", {"arms": arms, "seeds": list(run.study.seeds), "commit": summary["commit"]})
    return _page(folder, run, arms, measures), ranking(arms, measures, likely=True).text(rule=False)


# Numbers --------------------------------------------------------------------------------------------------------------


def _arm(run: Run, compared: Mapping[str, Any], policies: Sequence[str]) -> Json:
    """Everything about one arm that does not depend on the others."""
    results, steps = _measured(run), run.study.world_model.steps
    seconds = (compared.get("seconds") or {}).get("world_model")
    return {
        "strength": run.study.stress.distractors,
        "losses": list(run.study.losses),
        "measures": _of_model(results)
        | {policy: (compared.get("average") or {}).get(policy, {}).get("value") for policy in policies},
        "share": _share(run),
        "milliseconds": 1000 * seconds / steps if seconds else None,
    }


def _measured(run: Run) -> list[Json]:
    """What is known of the world models of those seeds that have been measured."""
    return [run.fidelity(seed).results for seed in run.study.seeds if run.fidelity(seed).complete]


def _of_model(results: Sequence[Json]) -> dict[str, float | None]:
    """Means over the seeds; what was not measured is None."""
    found = fidelity(results)
    action = (_path(one, "action_probe", "pictures", "mlp", "imagined_8", "translation", "relative") for one in results)
    return {
        **{place: found["probes"].get(place) for place in ("seen", "imagined_8", "imagined_late")},
        "hand": found["tcp_error"].get("imagined_late"),
        "psnr": mean(mean(values[-1] for values in one.get("psnr", {}).values()) for one in results),
        "action": mean(action),
    }


def _path(values: Any, *names: str) -> float | None:
    for name in names:
        values = values.get(name) if isinstance(values, Mapping) else None
    return None if values is None else float(values)


def _samples(run: Run, compared: Mapping[str, Any], policies: Sequence[str]) -> dict[str, np.ndarray]:
    """Scores [seeds, probes or tasks] of an arm, by which it is held against the base."""
    found = {"probes": np.array([_probes(one) for one in _measured(run)])}
    tasks = list((compared.get("tasks") or {}).values())
    # in a study that is still at work, or was interrupted, some tasks have more seeds than others
    if len({tuple(seed["seed"] for seed in task["per_seed"]) for task in tasks}) == 1:
        found |= {policy: scores(compared, policy) for policy in policies}
    return found


def _probes(results: Mapping[str, Any]) -> list[float]:
    """All scores; one that could not be given, where a light was never on, is nobody's gain."""
    places = (results["probes"].get(place, {}) for place in ("seen", "imagined_8", "imagined_late"))
    return [max(score or 0.0, 0.0) for found in places for score in found.values()]


def _share(run: Run) -> float | None:
    """What the arm adds to reconstruction and KL: its share of the gradient at the embedding."""
    half = run.study.world_model.steps / 2
    shares = []
    for line in read_metrics(run.folder):
        found = {k.partition("/")[2]: v for k, v in line.items() if k.startswith("gradient_share/")}
        if found and line["step"] >= half:
            shares.append(sum(value for name, value in found.items() if name not in USUAL))
    return mean(shares)


def _rank(arms: Mapping[str, Json], measures: Mapping[str, Measure]) -> None:
    """Add mean ranks to arms of one strength; equal ones share a rank."""
    ranks: dict[str, list[float]] = {name: [] for name in arms}
    for key, measure in measures.items():
        values = {name: arm["measures"][key] for name, arm in arms.items() if arm["measures"][key] is not None}
        for name, value in values.items():
            better = sum(measure.sign * (other - value) > 0 for other in values.values())
            equal = sum(other == value for other in values.values())
            ranks[name].append(better + (equal + 1) / 2)
    for name, arm in arms.items():
        arm["rank"] = mean(ranks[name])


def _against_base(arms: Mapping[str, Json], samples: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Add how much, and how likely, each arm of one strength is better than the first; with two seeds or more."""
    base, *others = arms
    for name in others:
        pairs = {key: (x, samples[base].get(key, np.empty(0))) for key, x in samples[name].items()}
        enough = {key: (x, y) for key, (x, y) in pairs.items() if min(len(x), len(y)) > 1}
        if enough:
            arms[name]["gain"] = {key: estimate(_gain(x, y)) for key, (x, y) in enough.items()}
            arms[name]["better"] = {key: estimate(probability_of_improvement(x, y)) for key, (x, y) in enough.items()}


def _gain(x: np.ndarray, y: np.ndarray) -> Estimate:
    """Mean of x - y, which are [seeds, scores] of models that share their play and, by seed, their first weights."""
    seeds = min(len(x), len(y))
    return seed_bootstrap(x[:seeds] - y[:seeds], lambda differences: float(differences.mean()))


# Table and page -------------------------------------------------------------------------------------------------------


def ranking(arms: Mapping[str, Json], measures: Mapping[str, Measure], *, likely: bool) -> Table:
    """The best of each strength first; measures that no arm has are left out.

    Args:
        arms: what is known of them.
        measures: what they are ranked by.
        likely: with P(better).
    """
    known = {key: m for key, m in measures.items() if any(arm["measures"][key] is not None for arm in arms.values())}
    compared = list(dict.fromkeys(key for arm in arms.values() for key in arm.get("better", ())))
    better = compared if likely else []
    rows = [
        (
            name,
            number(arm["rank"], 1),
            *(number(arm["measures"][key], measure.digits) for key, measure in known.items()),
            *(_cell(arm, "gain", key, "+.2f") for key in compared),
            *(_cell(arm, "better", key, ".2f") for key in better),
            number(arm["share"], 2),
            number(arm["milliseconds"], 0),
        )
        for name, arm in sorted(arms.items(), key=lambda pair: (pair[1]["strength"], pair[1]["rank"] or np.inf))
    ]
    columns = ["arm", "rank", *(measure.title for measure in known.values())]
    columns += [f"{key} against base" for key in compared] + [f"P(better) {key}" for key in better]
    return Table([*columns, "share", "ms"], rows)


def _cell(arm: Json, kind: str, key: str, form: str) -> str:
    found = arm.get(kind, {}).get(key)
    return shown(estimate_of(found) if found else None, form)


def _page(folder: Path, run: Run, arms: Mapping[str, Json], measures: Mapping[str, Measure]) -> Path:
    tables = []
    for strength in dict.fromkeys(arm["strength"] for arm in arms.values()):
        some = {name.partition(DISTRACTED)[0]: arm for name, arm in arms.items() if arm["strength"] == strength}
        ranked = ranking(some, measures, likely=False).html("folded")
        tables.append(section(f"Who helps, distractors {strength:g}", ranked))
    series, curves = _series(run), ""
    if series:
        plot = panels(series, x_label="training step", family=lambda line: line.partition(":")[0])
        curves = figure(folder, "losses", plot, "losses and shares of the gradient while world models train")
    name = folder.resolve().name
    more = f'<p>{_ABOUT}</p><p>Success, probes and pictures arm by arm: <a href="report.html">report.html</a>.</p>'
    head = f"<h1>Losses: {escape(name)}</h1>"
    return write_page(
        folder / "losses.html", f"losses: {name}", [head, *tables, more, section("While they train", curves)]
    )


def _series(run: Run) -> dict[str, dict[str, list[Point]]]:
    """Of every added loss, its values and shares by step: a panel each, one line a strength and seed."""
    found: dict[str, dict[str, list[Point]]] = {}
    for name, arm in run.arms().items():
        short, strength = name.partition(DISTRACTED)[0], f"distractors {arm.study.stress.distractors:g}"
        for line in read_metrics(arm.folder) if arm.folder.exists() else ():
            for key, value in line.items():
                kind, _, loss = key.partition("/")
                if kind in KINDS and loss not in USUAL:
                    # of an arm that is not named after what it adds, both
                    whose = short if short.startswith(loss) else f"{short}, {loss}"
                    panel = found.setdefault(f"{whose}: {KINDS[kind]}", {})
                    panel.setdefault(f"{strength}: {line['prefix']}", []).append(Point(line["step"], value))
    return found
