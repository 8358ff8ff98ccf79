"""Where jurors judge, each is heard by itself, first frames are counted, and nobody speaks of skill or of reality."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.commands.runs import _success as line_of
from experiments.report.outcomes import Outcomes
from experiments.report.recorded.jurors import FEW, blind, few_starts, jurors_table, warnings, weight
from experiments.report.recorded.known import about_recorded
from experiments.report.results import console_table, result_tables
from experiments.report.statistics import independent_difference, paired_difference, success_rate
from experiments.report.summary import estimate, judged, over_tasks, pooled
from experiments.report.verdict import effect, verdict
from experiments.report.verdict import warnings as all_warnings

Json = dict[str, Any]
LIMIT = 152


def evaluation(starts: int, rates: Json, *, each: int = 4) -> Json:
    """What evaluation.json says of a task: rates of each policy by each juror, `each` dreams of every first frame."""
    jurors = len(rates["bc"])
    index = np.tile(np.tile(np.arange(starts), each), jurors)
    juror = np.repeat(np.arange(jurors), starts * each)
    found: Json = {"task": "reach", "seed": 0, "limit": LIMIT, "sampler": "stochastic", "samplers": ["stochastic"]}
    for policy, of_jurors in rates.items():
        rng = np.random.default_rng(1)
        luck = np.tile(rng.permutation(starts * each) / (starts * each), jurors)
        success = luck < np.repeat(of_jurors, starts * each)
        steps = np.where(success, 50, LIMIT)
        found[policy] = {"index": index.tolist(), "success": success.astype(int).tolist(), "steps": steps.tolist()}
        found[policy]["juror"] = juror.tolist()
    return found | {"bc_other": None}


def summary(
    starts: int = 30, *, bc: Any = (0.4, 0.4), ppo: Any = (0.8, 0.8), right: float = 0.9, wrong: float | None = 0.1
) -> Json:
    """Of a study with one task."""
    told = Outcomes.read([evaluation(starts, {"bc": bc, "ppo": ppo})], {"bc": "bc", "ppo": "ppo"})
    rates = {"bc": float(np.mean(bc)), "ppo": float(np.mean(ppo))}
    seed = {"seed": 0, "sampler": "stochastic", **rates, "imagined_bc": 0.5, "imagined_ppo": 0.9, "kept": 8}
    seed["difference"] = estimate(told.policies["ppo"].over(told.policies["bc"]))
    tasks = {"reach": pooled(told, (72, 110), [seed])}
    tried = {
        "succeeded": {"attempts": 9, "rate": right},
        "failed": {"attempts": 3 if wrong is not None else 0, "rate": wrong},
    }
    jury = {"models": len(bc), "held_out": 7, "tasks": {"reach": tried}}
    return {"improved": "ppo", "env": "recorded", "tasks": tasks, "average": over_tasks(tasks), "jurors": jury}


def test_each_juror_has_its_own_rate_and_interval_in_which_a_first_frame_counts_once() -> None:
    found = summary(6, bc=(0.25, 0.5), ppo=(0.5, 1.0))["tasks"]["reach"]
    assert found["starts"] == 6
    one = evaluation(6, {"bc": (0.25, 0.5), "ppo": (0.5, 1.0)})
    for juror, told in enumerate(found["per_juror"]):
        own = np.array(one["bc"]["juror"]) == juror
        start = np.array(one["bc"]["index"])[own]
        done = {policy: np.array(one[policy]["success"])[own] for policy in ("bc", "ppo")}
        assert (told["juror"], told["n"]) == (juror, 24)
        for policy, success in done.items():
            expected = success_rate(success, start)
            assert told[policy]["rate"] == expected.value == success.mean()
            assert told[policy]["interval"] == list(expected.interval)
            alone = success_rate(success).interval
            assert expected.interval.high - expected.interval.low >= alone.high - alone.low
        assert told["difference"]["value"] == paired_difference(done["ppo"], done["bc"], start).value


def test_the_table_of_jurors_ends_with_how_far_they_are_apart() -> None:
    table = jurors_table(summary(6, bc=(0.25, 0.5), ppo=(0.5, 1.0)))
    assert [row[1] for row in table.rows] == ["0", "1", "apart"]
    assert table.columns[2:4] == ("first frames", "replays")
    assert table.rows[0][2:4] == ("6", "24")
    assert [re.sub(r" .*", "", cell) for cell in table.rows[0][4:]] == ["25", "50", "+25"]
    assert table.rows[2][4:] == ("25", "50", "25")
    assert [row[1] for row in jurors_table(summary(6, bc=(0.5,), ppo=(0.5,))).rows] == ["0"]


def test_the_average_of_the_tasks_has_its_jurors_too() -> None:
    one = summary(6, bc=(0.25, 0.5), ppo=(0.5, 1.0))
    two = one | {"tasks": {"reach": one["tasks"]["reach"], "push": one["tasks"]["reach"]}}
    two["average"] = over_tasks(two["tasks"])
    rows = jurors_table(two).rows
    assert [row[0] for row in rows] == ["reach"] * 3 + ["push"] * 3 + ["average"] * 3
    assert [cell.partition(" ")[0] for cell in rows[7][4:]] == [cell.partition(" ")[0] for cell in rows[1][4:]]


@pytest.mark.parametrize(("starts", "few"), [(FEW - 1, True), (FEW, False)])
def test_few_first_frames_are_warned_of_however_many_replays_there_are(starts: int, few: bool) -> None:
    found = summary(starts)
    assert found["tasks"]["reach"]["n"] > 7 * FEW
    assert few_starts(found) == ({"reach": starts} if few else {})
    assert any(f"Fewer than {FEW} first frames a task: reach ({starts})" in note for note in all_warnings(found)) == few
    assert any(f"All of it rests on {starts} first frames" in said for said in about_recorded(found))
    # and no word of episodes, of which there are none
    assert not any("episodes a task" in note for note in all_warnings(found))


def test_no_hour_on_the_robot_is_spent_on_two_policies_that_are_one() -> None:
    found = summary()
    other = dict(found["tasks"]["reach"], per_seed=[{"seed": 0, "stop_reason": "no_go", "kept": 0}])
    both = found | {"tasks": {"reach": found["tasks"]["reach"], "push": other}}
    both["jurors"] = found["jurors"] | {"tasks": dict.fromkeys(("reach", "push"), found["jurors"]["tasks"]["reach"])}
    assert "test reach first" in about_recorded(both)[-1]
    assert "BC and PPO in turn" in about_recorded(both)[-1]
    seeds = [{"seed": 0, "stop_reason": "no_go", "kept": 0}, {"seed": 1, "stop_reason": "fell", "kept": 5}]
    some = found | {"tasks": {"reach": dict(found["tasks"]["reach"], per_seed=seeds)}}
    assert "BC and PPO of seed 1, the others were not trained, in turn" in about_recorded(some)[-1]
    alone = found | {"tasks": {"reach": other}}
    assert about_recorded(alone)[-1] == (
        "With one hour on the robot, test BC alone (reach): PPO was not trained, and its policies are BC's."
    )


def test_replays_are_never_called_skill_nor_real() -> None:
    for ppo, kind in (((0.9, 0.9), "raised"), ((0.4, 0.4), "unclear"), ((0.1, 0.1), "lowered")):
        found = summary(ppo=ppo)
        assert effect(found) == kind
        tables = "\n".join(f"{t.title} {t.about}\n{t.text()}" for t in result_tables(found))
        said = "\n".join([verdict(found), console_table(found), tables, *about_recorded(found)])
        assert not re.search(r"\b(skill|real|simulator)\b", said.replace("no simulator was asked", "")), said


def test_less_time_and_less_noise_are_told_without_a_word_of_skill(tmp_path: Path) -> None:
    from evaluations import Policy, Task, write_evaluations

    for known in (
        Task(Policy(0.9, 90), Policy(0.93, 50), Policy(0.93, 90)),
        Task(Policy(0.6, 50), Policy(0.9, 50), Policy(0.92, 50)),
    ):
        found = write_evaluations(tmp_path, {"reach": known}) | {"improved": "ppo"}
        simulated = verdict(found)
        assert "not skill" in simulated
        assert "skill" not in verdict(found | {"jurors": summary()["jurors"]})


def test_a_verdict_by_jurors_says_what_it_is_worth() -> None:
    def worth(**changes: Any) -> str:
        found = summary(**changes)
        assert weight(found, found["tasks"]["reach"]) in verdict(found)
        return weight(found, found["tasks"]["reach"])

    assert worth().startswith("Jurors agree, and tell recorded successes from failures")
    assert worth(right=0.5, wrong=0.4) == (
        "Nothing follows from it: jurors hardly tell recorded successes from failures."
    )
    assert "a hint at best: it rests on 6 first frames a task." in worth(starts=6)
    assert "no failure at reach was recorded, on which jurors could be tried" in worth(wrong=None)
    assert "there is one juror" in worth(bc=(0.4,), ppo=(0.8,))
    split = worth(bc=(0.4, 0.4), ppo=(0.5, 0.9))
    assert "jurors do not agree on the gain, of which one sees +10 points and one +50" in split
    assert verdict(summary()).endswith("Seen on reach, 240 replays each, from 30 first frames, 1 seed.")


def test_jurors_that_see_a_policy_differently_are_warned_of() -> None:
    near, far = (warnings(summary(bc=(0.4, 0.4), ppo=(0.5, high))) for high in (0.6, 0.9))
    assert not any("do not agree" in note for note in near)
    assert "Jurors do not agree, in points between two of them: reach (PPO 40)." in far
    assert blind(summary()) == {}


def test_another_simulator_s_starts_are_no_first_frames_and_nothing_is_paired() -> None:
    ours = Outcomes.read([evaluation(6, {"bc": (0.5, 0.5), "ppo": (0.75, 0.75)})], {"bc": "bc", "ppo": "ppo"})
    there = evaluation(50, {"bc": (0.2,), "ppo": (0.4,)}, each=1)
    for policy in ("bc", "ppo"):
        del there[policy]["juror"]
    theirs = Outcomes.read([there], {"bc": "bc", "ppo": "ppo"})
    told = judged(ours, theirs, (72,), replays=True)
    for policy in ("bc", "ppo"):
        real, seen = theirs.policies[policy].rate(), ours.policies[policy].rate()
        assert told["gap"][policy]["value"] == pytest.approx(real.value - seen.value)
        # as if either had been known exactly, it would be narrower
        low, high = told["gap"][policy]["interval"]
        assert low < real.interval.low - seen.value
        assert high > real.interval.high - seen.value
        # of all first frames, not of those whose numbers are start states, too
        assert told["shared"][policy]["rate"] == seen.value
    found = summary(6)
    found["tasks"]["reach"]["judged"] = {"Arm-v0": told}
    table = next(t for t in result_tables(found) if t.key == "judged")
    assert "beside what jurors saw in all their replays (jurors)" in table.about
    assert table.rows[0][2] == "50, 75"
    assert verdict(found).startswith("No robot was asked; what Arm-v0 says of the same policies has a table")
    assert any(note.startswith("Less success than jurors saw in Arm-v0") for note in all_warnings(found))


def test_a_list_of_runs_says_whose_points_they_are(tmp_path: Path) -> None:
    from evaluations import Policy, Task, write_evaluations

    assert line_of(summary()).endswith(" points by jurors")
    found = write_evaluations(tmp_path, {"reach": Task(Policy(0.5), Policy(0.9))}) | {"improved": "ppo"}
    assert line_of(found).endswith(" points")


def test_independent_numbers_differ_by_newcombe_s_interval() -> None:
    # his example, 56 of 70 against 48 of 80: .2 [.0524, .3339]
    a, b = (success_rate(np.arange(n) < k) for k, n in ((56, 70), (48, 80)))
    found = independent_difference(a, b)
    assert found.value == pytest.approx(0.2)
    assert found.interval == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_where_a_simulator_judges_no_juror_is_spoken_of(tmp_path: Path) -> None:
    from evaluations import Policy, Task, write_evaluations

    found = write_evaluations(tmp_path, {"reach": Task(Policy(0.5), Policy(0.9))}) | {"improved": "ppo"}
    assert "starts" not in found["tasks"]["reach"]
    assert "per_juror" not in found["tasks"]["reach"] | found["average"]
    assert jurors_table(found).rows == ()
    assert warnings(found) == []
    assert weight(found, found["tasks"]["reach"]) == ""
