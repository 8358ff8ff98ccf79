"""What a summary says of recorded episodes: sooner, under both samplers, how fast, and in another simulator."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from evaluations import CALVIN, LIMIT, NAMES, WITHIN, Policy, Task, evaluation, imagined, write_evaluations

from experiments.report.outcomes import OTHER, STOCHASTIC, Episodes, Outcomes, recorded, same_episodes
from experiments.report.results import dreams_table
from experiments.report.statistics import average, compare_times, estimate_of, paired_difference, success_rate
from experiments.report.summary import _rounds, estimate, pooled
from worldaction.io.atomic import write_json
from worldaction.io.sealed_json import read_json

FAIR = Task(Policy(0.6, 80), Policy(0.9, 50), Policy(0.8, 60), judged=0.7)
Json = dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json]:
    folder = tmp_path_factory.mktemp("run")
    return folder, write_evaluations(folder, {"open_drawer": FAIR, "turn_on_led": FAIR}, seeds=3)


def _files(folder: Path, policy: str, where: str = "") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Successes, steps and start states of the drawer over the seeds, read from the files."""
    parts = [read_json(path)[policy] for path in sorted((folder / "evaluation" / where).glob("open_drawer-seed*"))]
    success, steps, index = (np.concatenate([p[key] for p in parts]) for key in ("success", "steps", "index"))
    return success.astype(bool), steps, index


def test_success_within_fewer_steps_is_that_of_the_same_episodes(run: tuple[Path, Json]) -> None:
    folder, found = run
    task = found["tasks"]["open_drawer"]
    assert list(task["within"]) == ["72", "110", "150"]
    success, steps, start = _files(folder, "ppo")
    cloned, slow, _ = _files(folder, "bc")
    for within in WITHIN:
        here = task["within"][str(within)]
        expected = success_rate(success & (steps <= within), start)
        assert (here["ppo"]["rate"], tuple(here["ppo"]["interval"])) == (expected.value, tuple(expected.interval))
        pair = paired_difference(success & (steps <= within), cloned & (slow <= within), start)
        assert here["difference"] == estimate(pair)
    rates = [task["within"][str(within)]["bc"]["rate"] for within in WITHIN] + [task["bc"]["rate"]]
    assert rates == sorted(rates)
    assert task["limit"] == LIMIT


def test_horizons_beyond_the_time_limit_are_not_told() -> None:
    one = Outcomes.read([evaluation("open_drawer", FAIR, 0) | {"limit": 110}], NAMES)
    assert list(pooled(one, WITHIN, [_dreams()])["within"]) == ["72", "110"]


def _dreams() -> Json:
    return {"imagined_bc": 0.5, "imagined_ppo": 0.5}


def test_time_to_success_counts_failures_as_longer_than_any() -> None:
    def episodes(success: list[int], steps: list[int]) -> Episodes:
        return Episodes.read([(0, {"index": list(range(len(steps))), "success": success, "steps": steps})])

    assert episodes([1, 1, 1, 0, 0], [40, 60, 50, 152, 152]).time() == 60
    # of the successes alone it would be 45
    assert episodes([1, 1, 0, 0, 0], [40, 50, 152, 152, 152]).time() is None


def test_the_clone_under_both_samplers_is_told_and_the_better_one_is_the_baseline(run: tuple[Path, Json]) -> None:
    folder, found = run
    task = found["tasks"]["open_drawer"]
    assert task["samplers"] == {"0": "deterministic", "1": "deterministic", "2": "deterministic"}
    assert task["bc"]["rate"] > task["bc_other"]["rate"]
    success, _, start = _files(folder, "ppo")
    drawn, *_ = _files(folder, "bc_other")
    assert task["difference_stochastic"] == estimate(paired_difference(success, drawn, start))


def test_seeds_may_differ_in_which_sampler_is_better() -> None:
    sure, drawn = (
        evaluation("open_drawer", FAIR, 0),
        evaluation("open_drawer", FAIR._replace(deterministic=Policy(0)), 1),
    )
    found = Outcomes.read([sure, drawn], NAMES)
    assert dict(found.samplers) == {0: "deterministic", 1: "stochastic"}
    expected = [*sure["bc_other"]["success"], *drawn["bc"]["success"]]
    assert found.policies[STOCHASTIC].success.tolist() == [bool(s) for s in expected]


def test_a_policy_that_did_what_the_clone_did_with_the_same_random_actions_was_not_changed() -> None:
    found = evaluation("open_drawer", FAIR, 0)
    assert found["sampler"] == "deterministic"
    assert not same_episodes(found, "ppo")
    assert same_episodes(found | {"ppo": dict(found["bc_other"])}, "ppo")
    assert not same_episodes(found | {"ppo": dict(found["bc"])}, "ppo")


def test_of_policies_that_never_succeed_nobody_can_say_that_they_do_the_same() -> None:
    never = evaluation("open_drawer", Task(Policy(0.0), Policy(0.0)), 0)
    assert never["bc"]["steps"] == never["ppo"]["steps"]
    assert not same_episodes(never, "ppo")


def test_the_order_in_which_horizons_are_given_does_not_matter() -> None:
    one = Outcomes.read([evaluation("open_drawer", FAIR, 0)], NAMES)
    assert list(pooled(one, (150, 72, 110, 72), [_dreams()])["within"]) == ["72", "110", "150"]


def test_a_head_with_one_sampler_has_no_other() -> None:
    found = Outcomes.read([evaluation("open_drawer", FAIR._replace(deterministic=None), 0)], NAMES)
    assert not {OTHER, STOCHASTIC} & found.policies.keys()
    task = pooled(found, WITHIN, [_dreams()])
    assert task["bc_other"] is None
    assert task["fair"]
    assert task["difference_stochastic"] is None
    assert task["within"]["72"]["bc_other"] is None


def test_another_simulator_is_set_against_this_one_on_the_starts_that_both_have(run: tuple[Path, Json]) -> None:
    folder, found = run
    there = found["tasks"]["open_drawer"]["judged"][CALVIN]
    success, _, start = _files(folder, "ppo")
    judged, _, starts = _files(folder, "ppo", "judged-Calvin-v0")
    assert there["n"] == len(judged) == 150
    assert there["ppo"]["rate"] == judged.mean()
    assert there["gap"]["ppo"] == estimate(paired_difference(judged, success[start < 50], starts))
    assert there["within"]["72"]["bc"]["rate"] < there["bc"]["rate"]
    # of the run's own simulator, what the gap was computed from, and not the rate over all its start states
    shared = success_rate(success[start < 50], start[start < 50])
    assert there["shared"]["ppo"]["rate"] == shared.value != found["tasks"]["open_drawer"]["ppo"]["rate"]
    assert tuple(there["shared"]["ppo"]["interval"]) == tuple(shared.interval)
    for policy in ("bc", "ppo"):
        gap = there[policy]["rate"] - there["shared"][policy]["rate"]
        assert there["gap"][policy]["value"] == pytest.approx(gap)


def test_the_average_tells_all_that_its_tasks_tell(run: tuple[Path, Json]) -> None:
    mean, tasks = run[1]["average"], list(run[1]["tasks"].values())
    for pick, key in (
        (lambda told: told["bc_other"], "rate"),
        (lambda told: told["within"]["72"]["ppo"], "rate"),
        (lambda told: told["within"]["110"]["difference"], "value"),
        (lambda told: told["judged"][CALVIN]["ppo"], "rate"),
        (lambda told: told["judged"][CALVIN]["gap"]["bc"], "value"),
        (lambda told: told["judged"][CALVIN]["shared"]["ppo"], "rate"),
        (lambda told: told["judged"][CALVIN]["shared"]["difference"], "value"),
        (lambda told: told["difference_stochastic"], "value"),
    ):
        assert pick(mean) == estimate(average([estimate_of(pick(task), key) for task in tasks]))
    assert mean["time"]["ppo"] == np.mean([task["time"]["ppo"] for task in tasks])
    assert mean["limit"] == LIMIT


def test_an_average_says_nothing_of_what_one_task_lacks(tmp_path: Path) -> None:
    apart = FAIR._replace(judged=None, deterministic=None, ppo=Policy(0.2))
    mean = write_evaluations(tmp_path, {"open_drawer": FAIR, "turn_on_led": apart})["average"]
    assert (mean["bc_other"], mean["judged"], mean["time"]["ppo"]) == (None, {}, None)
    assert mean["within"]["72"]["bc_other"] is None


def test_a_summary_goes_into_json_and_a_simulator_may_have_judged_some_seeds_only(run: tuple[Path, Json]) -> None:
    folder, found = run
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    (folder / "evaluation" / "judged-Calvin-v0" / "turn_on_led-seed1.json").unlink()
    assert set(recorded(folder, "turn_on_led", range(3), NAMES)[CALVIN].samplers) == {0, 2}


def test_calvins_own_oracle_is_told_beside_a_stricter_success() -> None:
    def strict(seed: int) -> Json:
        found = evaluation("open_drawer", FAIR, seed)
        for name in ("bc", "bc_other", "ppo"):
            # CALVIN is content with every episode, ten steps before a stricter success
            found[name]["oracle_steps"] = [steps - 10 for steps in found[name]["steps"]]
        return found

    outcomes = Outcomes.read([strict(0), strict(1)], NAMES)
    told = pooled(outcomes, WITHIN, [_dreams()])["oracle"]
    assert list(told) == ["72", str(LIMIT)]
    assert told[str(LIMIT)]["ppo"]["rate"] == 1.0
    steps = outcomes.improved.steps
    assert told["72"]["ppo"]["rate"] == (steps <= 82).mean()
    assert pooled(Outcomes.read([evaluation("open_drawer", FAIR, 0)], NAMES), WITHIN, [_dreams()])["oracle"] == {}


def test_times_in_dreams_are_set_against_those_of_the_episodes_under_the_same_sampler(run: tuple[Path, Json]) -> None:
    folder, found = run
    told = found["tasks"]["open_drawer"]["dreamed_time"]
    for name, dreams in (("bc", "bc_deterministic"), ("ppo", "ppo")):
        success, steps, start = _files(folder, name)
        taken = [imagined(FAIR, seed)[dreams]["success_step"] for seed in range(3)]
        expected = compare_times(
            (np.concatenate(taken), np.tile(np.arange(80), 3)), (np.where(success, steps, 0), start), LIMIT
        )
        assert (told[name]["imagined"], told[name]["real"]) == expected.means
        assert told[name]["difference"] == estimate(expected.difference)
        assert told[name]["distance"] == estimate(expected.distance)
        assert told[name]["at"] == expected.at


def test_times_in_dreams_are_averaged_and_have_a_table(run: tuple[Path, Json]) -> None:
    _, found = run
    tasks, mean = [task["dreamed_time"]["ppo"] for task in found["tasks"].values()], found["average"]["dreamed_time"]
    assert mean["ppo"]["imagined"] == np.mean([task["imagined"] for task in tasks])
    for key in ("difference", "distance"):
        assert mean["ppo"][key] == estimate(average([estimate_of(task[key]) for task in tasks]))
    table = dreams_table(found)
    assert [row[0] for row in table.rows] == ["open_drawer", "turn_on_led"]
    first = tasks[0]
    assert table.rows[0][4] == f"{first['imagined']:.0f}, {first['real']:.0f}"
    assert table.rows[0][5].startswith(f"{first['difference']['value']:+.0f} [")
    assert dreams_table({"tasks": {"open_drawer": {}}}).rows == []


def test_real_episodes_and_steps_are_those_of_the_seeds_that_are_told(tmp_path: Path) -> None:
    task, steps = "turn_on_led", {1: {0: 100, 1: 300}, 2: {0: 50}}

    def side(number: int) -> SimpleNamespace:
        for seed in steps[number]:
            folder = tmp_path / f"evaluation/real{number}"
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / f"{task}-seed{seed}.json", evaluation(task, FAIR, seed))
        return SimpleNamespace(
            prefix=f"real{number}/",
            task=lambda seed, *_: SimpleNamespace(complete=seed in steps[number]),
            recorded=lambda seed, _: SimpleNamespace(
                results={"episodes": 2, "successes": seed, "steps": steps[number][seed]}
            ),
        )

    sides = [side(1), side(2)]
    run: Any = SimpleNamespace(folder=tmp_path, rounds=lambda: sides)
    here = Outcomes.read([evaluation(task, FAIR, seed) for seed in (0, 1)], NAMES)
    told = _rounds(run, task, [0, 1], here)
    assert [(one["seeds"], one["episodes"], one["steps"]) for one in told] == [([0, 1], 2, 200), ([0], 4, 150)]


def test_replays_which_share_seed_and_start_are_not_paired_by_them() -> None:
    plain = Episodes(np.zeros(2, int), np.arange(2), np.ones(2, bool), np.ones(2, int))
    replays = Episodes(np.zeros(2, int), np.zeros(2, int), np.ones(2, bool), np.ones(2, int), juror=np.arange(2))
    for one, other in ((plain, replays), (replays, plain)):
        with pytest.raises(ValueError, match="replays cannot be paired"):
            one.shared_with(other)
