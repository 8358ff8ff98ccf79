"""The comparison of arms says what their episodes say, and no more than they can."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.report.comparison import compare, console_tables, headline, markdown_tables
from experiments.report.comparison.figures import calibration, folded, side_by_side
from experiments.report.comparison.tables import cautions
from experiments.report.outcomes import Outcomes
from experiments.report.pages.loss_page import write_losses
from experiments.report.pages.run_page import write_report
from experiments.report.statistics import average, interquartile_mean, paired_difference, success_rate
from experiments.report.summary import estimate, pooled
from experiments.study.run import Run
from experiments.study.settings import PRESETS
from worldaction.io.atomic import write_json
from worldaction.io.sealed_json import read_json

TASKS = ("open_drawer", "turn_on_led")
ARMS = ("base:", "wam:update.bc=0", "far:update.bc=1", "grouped:update.name=grpo")
EPISODES = 40
STARTS = np.tile(np.arange(EPISODES), 2)
"""Of two seeds."""
Json = dict[str, Any]
Rates = Mapping[str, tuple[float, float]]


def _episodes(bc: float, ppo: float, seed: int) -> Json:
    """Outcomes of both policies, of which hard starts are hard for both."""
    hard = np.random.default_rng(seed).random(EPISODES)
    found = {name: (hard < rate).astype(int) for name, rate in (("bc", bc), ("ppo", ppo))}
    start = list(range(EPISODES))
    policies = {
        name: {"index": start, "success": o.tolist(), "steps": (50 + 102 * (1 - o)).tolist()}
        | {"successes": int(o.sum()), "n": EPISODES}
        for name, o in found.items()
    }
    return {"seed": seed % 100, "limit": 152, "sampler": "stochastic", "choice": None, "bc_other": None, **policies}


def _summary(episodes: Mapping[tuple[str, int], Json], seeds: tuple[int, ...]) -> Json:
    tasks = {}
    for task in TASKS:
        per_seed = [
            {
                "seed": seed,
                **{policy: e[policy]["successes"] / EPISODES for policy in ("bc", "ppo")},
                "difference": estimate(paired_difference(e["ppo"]["success"], e["bc"]["success"])),
                "imagined_bc": 0.5,
                "imagined_ppo": 0.9,
                "iterations": 3,
                "stop_reason": "max_imagined",
            }
            for seed in seeds
            for e in [episodes[task, seed]]
        ]
        of = [episodes[task, seed] for seed in seeds]
        tasks[task] = pooled(Outcomes.read(of, {"bc": "bc", "ppo": "ppo"}), (72,), per_seed)
    model = {"probes": {"seen": {"r2_drawer": 0.9, "auroc_led": 0.7}, "imagined_8": {"r2_drawer": -5.0}}}
    return {
        "tasks": tasks,
        "renderer": "egl",
        "world_model": {"psnr": {"rgb_static": [28.0, 20.0]}, "per_seed": [model for _ in seeds]},
        "stage_seconds": {"seed0/world_model": 100.0, "seed0/open_drawer/clone": 2.0, "seed0/open_drawer/ppo": 3.0},
    }


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Run]:
    """Makes a study whose arms have finished, with these rates of BC and PPO."""

    def make(rates: Rates, seeds: tuple[int, ...] = (0, 1), *, name: str = "study") -> Run:
        arms = tuple(text for text in ARMS if text.partition(":")[0] in rates)
        config = replace(PRESETS["debug"], arms=arms, seeds=seeds, tasks=TASKS, workers=1, device="cpu")
        run = Run.create(replace(config, run_dir=str(tmp_path / name)))
        for arm, part in run.arms().items():
            Run.at(part.folder, part.study)
            cells = {(t, s): _episodes(*rates[arm], seed=100 * i + s) for i, t in enumerate(TASKS) for s in seeds}
            for (task, seed), values in cells.items():
                write_json(part.folder / "evaluation" / f"{task}-seed{seed}.json", values)
            write_json(part.folder / "summary.json", _summary(cells, seeds))
        return run

    return make


TWO: Rates = {"base": (0.4, 0.6), "wam": (0.5, 0.9)}


def _outcomes(run: Run, arm: str, policy: str) -> dict[str, np.ndarray]:
    """By task, seeds laid end to end, read from the files."""
    found = {}
    for task in TASKS:
        files = sorted((run.folder / "arms" / arm / "evaluation").glob(f"{task}-seed*.json"))
        found[task] = np.concatenate([read_json(file)[policy]["success"] for file in files])
    return found


# Numbers --------------------------------------------------------------------------------------------------------------


def test_rates_of_an_arm_are_those_of_its_episodes(study: Callable[..., Run]) -> None:
    run = study(TWO)
    arms = compare(run)["arms"]
    for name in TWO:
        found = _outcomes(run, name, "ppo")
        for task, successes in found.items():
            shown = arms[name]["tasks"][task]
            assert shown["n"] == len(successes) == 2 * EPISODES
            assert shown["ppo"]["rate"] == successes.mean()
            expected = success_rate(successes, STARTS).interval
            np.testing.assert_allclose(shown["ppo"]["interval"], expected)
        assert arms[name]["average"]["ppo"]["value"] == pytest.approx(np.mean([s.mean() for s in found.values()]))
    assert read_json(run.folder / "summary.json")["arms"].keys() == arms.keys()


def test_arms_are_compared_start_by_start_with_the_first(study: Callable[..., Run]) -> None:
    run = study(TWO)
    arms = compare(run)["arms"]
    for policy in ("bc", "ppo"):
        ours, first = _outcomes(run, "wam", policy), _outcomes(run, "base", policy)
        pairs = {task: paired_difference(ours[task], first[task], STARTS) for task in TASKS}
        for task, pair in pairs.items():
            assert arms["wam"]["against_first"]["tasks"][task][policy] == estimate(pair)
        assert arms["wam"]["against_first"]["average"][policy] == estimate(average(list(pairs.values())))
    assert "against_first" not in arms["base"]


def test_a_study_that_is_still_at_work_speaks_of_what_all_arms_have(study: Callable[..., Run]) -> None:
    run = study(TWO)
    path = run.folder / "arms" / "wam" / "summary.json"
    summary = read_json(path)
    summary["tasks"][TASKS[1]]["per_seed"].pop()
    write_json(path, summary)
    assert "1 to 2 seeds" in headline(compare(run))
    # its page on losses has no tables [seeds, tasks] to compare
    write_losses(run.folder)
    assert "better" not in read_json(run.folder / "losses.json")["arms"]["wam"]


def test_pairing_knows_more_than_the_rates_alone(study: Callable[..., Run]) -> None:
    arms = compare(study({"base": (0.5, 0.5), "wam": (0.6, 0.6)}))["arms"]
    low, high = arms["wam"]["against_first"]["average"]["ppo"]["interval"]
    widths = [np.ptp(arm["average"]["ppo"]["interval"]) for arm in arms.values()]
    assert high - low < np.hypot(*widths)


def test_statistics_over_seeds_need_two_of_them(study: Callable[..., Run]) -> None:
    one, two = compare(study(TWO, (0,), name="one"))["arms"], compare(study(TWO, name="two"))["arms"]
    assert "iqm" not in one["base"]
    assert not {"over_seeds", "improvement"} & one["wam"]["against_first"].keys()
    rates = [[s["ppo"] for s in task["per_seed"]] for task in two["wam"]["tasks"].values()]
    assert two["wam"]["iqm"]["ppo"]["value"] == pytest.approx(interquartile_mean(rates))
    # every training of the one beats every one of the other, and their difference is that of the averages
    assert two["wam"]["against_first"]["improvement"]["ppo"]["value"] == 1.0
    over, by_start = (two["wam"]["against_first"][key]["ppo"]["value"] for key in ("over_seeds", "average"))
    assert over == pytest.approx(by_start)


def test_only_what_all_arms_have_finished_is_compared(study: Callable[..., Run]) -> None:
    run = study(TWO)
    path = run.folder / "arms/wam/summary.json"
    summary = read_json(path)
    task = summary["tasks"]["open_drawer"]
    task["per_seed"] = task["per_seed"][:1]
    write_json(path, summary | {"unfinished": ["seed1/open_drawer/ppo", "seed1/open_drawer/evaluation"]})
    found = compare(run)
    assert found["tasks_compared"] == {"open_drawer": [0], "turn_on_led": [0, 1]}
    assert found["arms"]["base"]["tasks"]["open_drawer"]["n"] == EPISODES
    assert found["unfinished"] == {"wam": 2}
    assert "iqm" not in found["arms"]["base"]
    assert "wam 2" in cautions(found)[0]


def test_arms_without_a_summary_leave_nothing_to_compare_and_a_page_all_the_same(study: Callable[..., Run]) -> None:
    run = study(TWO)
    (run.folder / "arms/wam/summary.json").unlink()
    found = compare(run)
    assert found["tasks_compared"] == {}
    assert found["unfinished"]["wam"] == len(run.arms()["wam"].artefacts())
    assert "No task has been evaluated in all arms" in headline(found)
    assert "No task has been evaluated" in write_report(run.folder).read_text()


def test_world_models_are_summed_up_and_a_probe_worse_than_none_counts_as_none(study: Callable[..., Run]) -> None:
    arm = compare(study(TWO))["arms"]["base"]
    assert arm["world_model"]["psnr"] == {"rgb_static": [28.0, 20.0]}
    assert arm["world_model"]["probes"] == {"seen": pytest.approx(0.8), "imagined_8": 0.0}
    assert arm["seconds"] == {"world_model": 100.0, "policies": 5.0}


def test_the_settings_that_tell_arms_apart_are_named(study: Callable[..., Run]) -> None:
    arms = compare(study(TWO))["arms"]
    assert arms["base"]["changes"] == {"update.bc": PRESETS["debug"].update.bc}
    assert arms["wam"]["changes"] == {"update.bc": 0.0}


def test_arms_with_different_updates_are_compared_by_their_improved_policies(study: Callable[..., Run]) -> None:
    run = study({"base": (0.4, 0.5), "grouped": (0.4, 0.9)})
    folder = run.arms()["grouped"].folder
    for path in [folder / "summary.json", *(folder / "evaluation").glob("*.json")]:
        write_json(path, json.loads(json.dumps(read_json(path)).replace("ppo", "grpo")))
    summary = compare(run)
    assert summary["improved"] == "improved"
    rates = {name: arm["average"]["improved"]["value"] for name, arm in summary["arms"].items()}
    assert rates["base"] < rates["grouped"]
    assert headline(summary).startswith("With improved policies, grouped is better than base")
    assert "PPO" not in console_tables(summary)


# Words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({"base": (0.4, 0.5), "wam": (0.4, 0.9)}, "With PPO, wam is better than base"),
        ({"base": (0.4, 0.9), "wam": (0.4, 0.5)}, "With PPO, wam is worse than base"),
        ({"base": (0.4, 0.5), "wam": (0.7, 0.5)}, "With PPO, wam is not clearly different from base"),
        ({"base": (0.4, 0.5), "wam": (0.4, 0.6), "far": (0.4, 0.9)}, "Of 3 arms: with PPO, far is better than base"),
    ],
)
def test_the_headline_says_what_the_interval_allows(study: Callable[..., Run], rates: Rates, said: str) -> None:
    found = headline(compare(study(rates)))
    assert found.startswith(said)
    assert "Average of 2 tasks, 80 episodes each, 2 seeds" in found


def test_a_difference_that_seeds_could_turn_around_is_told(study: Callable[..., Run]) -> None:
    summary = compare(study(TWO))
    assert not any("turn it around" in note for note in cautions(summary))
    summary["arms"]["wam"]["against_first"]["over_seeds"]["ppo"]["interval"] = [-0.1, 0.5]
    assert "wam differs in PPO as trained; other seeds could turn it around." in cautions(summary)


def test_arms_whose_policy_is_their_clone_are_told(study: Callable[..., Run]) -> None:
    summary = compare(study(TWO))
    assert not any("no-go" in note for note in cautions(summary))
    summary["arms"]["wam"]["tasks"]["open_drawer"]["per_seed"][0]["stop_reason"] = "no_go"
    assert "wam: dreams of open drawer (seed 0) were a no-go, so PPO is the clone there." in cautions(summary)


def test_one_seed_and_dreams_that_promise_too_much_are_told(study: Callable[..., Run]) -> None:
    notes = " ".join(cautions(compare(study({"base": (0.4, 0.5), "wam": (0.4, 0.95)}, (0,)))))
    assert "One seed" in notes
    assert "base: dreams of the final policies succeed" in notes
    assert "wam: dreams" not in notes


def test_markdown_and_console_have_a_row_an_arm_with_the_same_cells(study: Callable[..., Run]) -> None:
    summary = compare(study(TWO))
    markdown, console = markdown_tables(summary), console_tables(summary)
    rate = summary["arms"]["wam"]["average"]["ppo"]
    cell = f"{100 * rate['value']:.0f} [{100 * rate['interval'][0]:.0f}, {100 * rate['interval'][1]:.0f}]"
    (row,) = [
        line for line in markdown.splitlines() if line.startswith("| wam |") and cell in line and "50, 90" in line
    ]
    (line,) = [line for line in console.splitlines() if line.startswith("wam") and cell in line and "50, 90" in line]
    for part in row.strip("| ").split(" | "):
        assert part in line
    assert markdown.count("| open drawer |") == markdown.count("| turn on led |") == len(TWO)
    tables = [block for block in markdown.split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


# Pictures and the page ------------------------------------------------------------------------------------------------


def test_every_arm_task_seed_and_policy_is_in_the_pictures(study: Callable[..., Run]) -> None:
    arms = compare(study(TWO))["arms"]
    plot = side_by_side(arms)
    panels = [axis.get_title(loc="left") for axis in plot.figure.axes]
    assert panels == ["average", "open drawer", "turn on led"]
    seeds = [row for row in plot.data if row["seed"] != ""]
    assert len(seeds) == 3 * 2 * 2 * 2
    (mean,) = [row for row in plot.data if (row["task"], row["arm"], row["policy"], row["seed"])
               == ("average", "wam", "ppo", "")]  # fmt: skip
    assert [mean["rate"], mean["low"], mean["high"]] == [
        arms["wam"]["average"]["ppo"]["value"],
        *arms["wam"]["average"]["ppo"]["interval"],
    ]
    dots = calibration(arms).data
    assert len(dots) == 2 * 2 * 2 * 2
    assert {(row["policy"], row["imagined"]) for row in dots} == {("bc", 0.5), ("ppo", 0.9)}


def test_long_names_are_broken_after_their_parts() -> None:
    assert folded("reconstruction+kl") == "reconstruction+kl"
    assert folded("reconstruction+kl+inverse_dynamics,ppo.bc=0") == "reconstruction+kl+\ninverse_dynamics,ppo.bc=0"


def test_the_page_of_a_study_leads_to_those_of_its_arms(study: Callable[..., Run]) -> None:
    run = study(TWO)
    compare(run)
    page = write_report(run.folder).read_text()
    for name in TWO:
        assert f'href="arms/{name}/report.html"' in page
    for name in ("arms", "calibration"):
        assert f'href="curves/{name}.csv"' in page
        assert (run.folder / "curves" / f"{name}.png").exists()
    assert headline(read_json(run.folder / "summary.json")) in page


def test_a_comparison_can_be_made_again_from_the_folder_alone(study: Callable[..., Run], tmp_path: Path) -> None:
    run = study(TWO)
    before = compare(run)
    shutil.move(run.folder, tmp_path / "moved")
    after = compare(Run(run.study, tmp_path / "moved"))
    assert after["arms"] == before["arms"]
