"""The figure of success against control steps, and its place on the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import CALVIN, LIMIT, NAMES, Policy, Task, write_evaluations
from matplotlib.text import Annotation

from experiments.report.outcomes import Outcomes, recorded
from experiments.report.over_time import curves, mean_curves, over_time, places
from experiments.report.pages.run_page import write_report
from experiments.report.statistics import average, success_rate
from worldaction.io.atomic import write_json

FAIR = Task(Policy(0.6, 80), Policy(0.9, 50), Policy(0.8, 60))


def test_a_curve_rises_to_the_rate_at_the_limit_and_its_band_holds_it(tmp_path: Path) -> None:
    write_evaluations(tmp_path, {"open_drawer": FAIR}, seeds=3)
    outcomes = recorded(tmp_path, "open_drawer", range(3), NAMES)[""]
    found = curves(outcomes)
    assert list(found) == ["bc", "bc_other", "ppo"]
    for name, curve in found.items():
        assert len(curve) == len(places(LIMIT))
        rates = [point.value for point in curve]
        assert rates == sorted(rates)
        assert curve[-1] == outcomes.policies[name].rate()
        assert all(point.interval.low <= point.value <= point.interval.high for point in curve)
    ppo, at = outcomes.policies["ppo"], places(LIMIT).index(72)
    assert found["ppo"][at] == success_rate(ppo.success & (ppo.steps <= 72), ppo.start)


def test_places_end_at_the_limit() -> None:
    assert places(152)[-2:] == [150, 152]
    assert places(73)[-2:] == [72, 73]


def test_the_mean_is_over_policies_that_all_tasks_have(tmp_path: Path) -> None:
    write_evaluations(tmp_path, {"open_drawer": FAIR, "turn_on_led": FAIR._replace(deterministic=None)})
    both = [curves(recorded(tmp_path, task, [0], NAMES)[""]) for task in ("open_drawer", "turn_on_led")]
    mean = mean_curves(both)
    assert list(mean) == ["bc", "ppo"]
    assert mean["ppo"][40] == average([one["ppo"][40] for one in both])


@pytest.mark.parametrize(("tasks", "panels"), [(1, 1), (2, 3), (3, 4), (8, 9)])
@pytest.mark.parametrize("judged", [None, 0.8])
def test_every_task_has_a_panel_and_another_simulator_one_beside_it(
    tasks: int, panels: int, judged: float | None, tmp_path: Path
) -> None:
    names = [f"task_{i}" for i in range(tasks)]
    write_evaluations(tmp_path, dict.fromkeys(names, FAIR._replace(judged=judged)))
    plot = over_time({name: recorded(tmp_path, name, [0], NAMES) for name in names}, (72, 110, 150))
    simulators = 1 if judged is None else 2
    assert len(plot.figure.axes) == panels * simulators
    titles = [axis.get_title(loc="left") for axis in plot.figure.axes]
    if judged:
        name, each = ("average", " a task") if tasks > 1 else ("task 0", "")
        shown = [("own simulator", 100), ("Calvin-v0", 50)]
        assert titles[:2] == [f"{name}\n{where}, n = {count}{each}" for where, count in shown]
    assert all("n = " in title for title in titles)
    for axis in plot.figure.axes:
        assert [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == ":"] == [72, 110, 150]
        assert sum(len(line.get_xdata()) > 2 for line in axis.lines) == 3
        # bands of the two that are compared alone: three hide each other
        assert len(axis.collections) == 2
        steps = [line.get_drawstyle() for line in axis.lines if len(line.get_xdata()) > 2]
        assert steps == ["steps-post"] * 3
    home = {"own simulator"}
    assert {row["simulator"] for row in plot.data} == (home if judged is None else home | {"Calvin-v0"})
    assert plot.data[-1].keys() == {"task", "simulator", "policy", "steps", "rate", "low", "high"}


def test_a_task_that_another_simulator_has_not_judged_leaves_its_panel_empty_and_the_mean_too(tmp_path: Path) -> None:
    write_evaluations(tmp_path, {"open_drawer": FAIR._replace(judged=0.9), "turn_on_led": FAIR})
    tasks = {name: recorded(tmp_path, name, [0], NAMES) for name in ("open_drawer", "turn_on_led")}
    drawn = {(row["task"], row["simulator"]) for row in over_time(tasks, (72,)).data}
    assert drawn == {
        ("average", "own simulator"),
        ("open_drawer", "own simulator"),
        ("open_drawer", "Calvin-v0"),
        ("turn_on_led", "own simulator"),
    }


@pytest.mark.parametrize("ppo", [0.8, 0.79, 0.1])
def test_the_labels_at_the_ends_of_two_lines_never_cover_each_other(ppo: float, tmp_path: Path) -> None:
    def one(rate: float, count: int = 100) -> dict[str, object]:
        success = [int(i < rate * count) for i in range(count)]
        return {"index": list(range(count)), "success": success, "steps": [50 if s else LIMIT for s in success]}

    told = {"task": "t", "seed": 0, "limit": LIMIT, "sampler": "stochastic", "bc_other": None}
    outcomes = Outcomes.read([told | {"bc": one(0.8), "ppo": one(ppo)}], NAMES)
    (axis,) = over_time({"t": {"": outcomes}}, ()).figure.axes
    labels = {text.get_text(): text.xy[1] for text in axis.texts if isinstance(text, Annotation)}
    places = [text.xy[1] for text in axis.texts if isinstance(text, Annotation)]
    assert len(places) == 2
    assert abs(places[0] - places[1]) >= 8
    if ppo == 0.1:
        assert labels == {"80": 80.0, "10": pytest.approx(10.0)}


def test_the_page_shows_the_figure_and_all_tables(tmp_path: Path) -> None:
    tasks = {"open_drawer": FAIR._replace(judged=0.9), "turn_on_led": FAIR._replace(judged=0.9)}
    moving = {"share": [0.1], "model": [15.0], "still": [10.0], "average": [12.0]}
    summary = write_evaluations(tmp_path, tasks) | {"world_model": {"moving": {"rgb_static": moving}}}
    write_json(tmp_path / "summary.json", summary)
    page = write_report(tmp_path).read_text()
    assert (tmp_path / "curves" / "over_time.csv").exists()
    for said in (
        "<h3>Success within fewer steps</h3>",
        f"<h3>The same policies in {CALVIN}</h3>",
        "BC acts under the sampler that did better on start states apart from these (deterministic 2 times), PPO under",
        "<td class=number>BC, other sampler</td>",
        "<td class=number>Calvin-v0</td>",
        "Success in the simulator within 152 control steps.",
        "<h3>Where something moves</h3>",
        "<td class=number>15.0</td><td class=number>10.0</td><td class=number>12.0</td>",
    ):
        assert said in page
