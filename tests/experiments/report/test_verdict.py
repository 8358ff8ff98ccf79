"""The verdict names what changed, and the warnings what a careful reader would ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evaluations import CALVIN, Policy, Task, held_out, write_evaluations

from experiments.report.results import console_table, held_out_table, judged_table, seeds_table, within_table
from experiments.report.trust import trust
from experiments.report.verdict import effect, verdict, warnings
from worldaction.config import SuccessConfig

Json = dict[str, Any]
KINDS = {
    "skill": Task(Policy(0.5), Policy(0.9), Policy(0.6)),
    "speed": Task(Policy(0.9, 90), Policy(0.93, 50), Policy(0.93, 90)),
    "noise": Task(Policy(0.6, 50), Policy(0.9, 50), Policy(0.92, 50)),
    "unclear": Task(Policy(0.8), Policy(0.8)),
    "lowered": Task(Policy(0.9), Policy(0.4)),
}


def _summary(folder: Path, *tasks: Task, seeds: int = 1, world_model: Json | None = None) -> Json:
    names = ("open_drawer", "move_slider_left", "turn_on_led")
    found = write_evaluations(folder, dict(zip(names, tasks, strict=False)), seeds=seeds)
    return found | {"improved": "ppo", "world_model": world_model or {}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tasks", [1, 2])
def test_the_verdict_names_what_changed(kind: str, tasks: int, tmp_path: Path) -> None:
    summary = _summary(tmp_path, *[KINDS[kind]] * tasks)
    assert effect(summary) == kind
    said = {
        "skill": "raised success in the simulator from",
        "speed": "come sooner, not more often: speed, not skill. Within 72 steps it rises from",
        "noise": "less noise, not skill",
        "unclear": "no clear effect on success in the simulator: from",
        "lowered": "lowered success in the simulator: from",
    }
    sentence = verdict(summary)
    assert sentence.startswith("PPO in imagination ")
    assert said[kind] in sentence
    assert "within 152" in sentence
    assert ("skill, not only speed" in sentence) == (kind == "skill")
    assert sentence.endswith(
        "average of 2 tasks, 100 episodes each, 1 seed." if tasks > 1 else "100 episodes each, 1 seed."
    )


def test_numbers_of_the_verdict_are_those_of_the_table(tmp_path: Path) -> None:
    summary = _summary(tmp_path, KINDS["skill"])
    task = summary["tasks"]["open_drawer"]
    low, high = (f"{100 * end:+.0f}" for end in task["difference"]["interval"])
    rates = f"from {100 * task['bc']['rate']:.0f} % to {100 * task['ppo']['rate']:.0f} % within 152 steps"
    by = f"({100 * task['difference']['value']:+.0f} points, 95 % interval {low} to {high})"
    assert f"{rates} {by}: skill, not only speed." in verdict(summary)


def test_a_limit_that_leaves_no_time_cannot_tell_skill_from_speed(tmp_path: Path) -> None:
    summary = _summary(tmp_path, KINDS["skill"])
    task = summary["tasks"]["open_drawer"]
    task["limit"], task["within"] = 72, {"72": task["within"]["72"]}
    assert effect(summary) == "raised"
    assert "skill" not in verdict(summary)


@pytest.mark.parametrize("limit", [76, 100])
def test_a_limit_that_hardly_leaves_time_cannot_either(limit: int, tmp_path: Path) -> None:
    summary = _summary(tmp_path, KINDS["skill"])
    summary["tasks"]["open_drawer"]["limit"] = limit
    assert effect(summary) == "raised"


def test_without_the_other_sampler_less_noise_is_not_ruled_out(tmp_path: Path) -> None:
    summary = _summary(tmp_path, KINDS["skill"], KINDS["skill"])
    assert summary["average"]["fair"]
    summary["average"]["fair"] = False
    assert effect(summary) == "raised"
    assert "skill" not in verdict(summary)


def test_less_noise_is_told_where_the_better_sampler_differs_by_task(tmp_path: Path) -> None:
    stochastic = Task(Policy(0.9, 50), Policy(0.9, 50), Policy(0.3, 50))
    summary = _summary(tmp_path, KINDS["noise"], stochastic)
    assert set(summary["tasks"]["move_slider_left"]["samplers"].values()) == {"stochastic"}
    assert effect(summary) == "noise"


def test_harm_is_named_though_dreams_had_nothing_to_teach(tmp_path: Path) -> None:
    summary = _summary(tmp_path, KINDS["lowered"]._replace(imagined=(0.03, 0.04)))
    assert effect(summary) == "lowered"


# Nothing was learned --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "said"),
    [
        ({"kept": 0, "iterations": 1, "stop_reason": "max_imagined"}, "ended before its first step (nearly all dreams"),
        (
            {"kept": None, "iterations": 2, "stop_reason": "max_divergence"},
            "ended before its first step (the policy had",
        ),
        ({"imagined_bc": 0.0, "imagined_ppo": 0.02}, "dreams stayed near 0 % (0 %, then 2 %)"),
        (
            {"kept": 0, "iterations": 0, "stop_reason": "no_go", "imagined_bc": 0.0, "imagined_ppo": 0.0},
            "PPO in imagination was not trained: dreams were a no-go, so its policy is the cloned one.",
        ),
        ({"unchanged": True}, "its episodes are those of the clone, step for step"),
    ],
)
def test_an_update_that_learned_nothing_is_named_and_is_not_no_clear_effect(
    seed: Json, said: str, tmp_path: Path
) -> None:
    summary = _summary(tmp_path, KINDS["unclear"], seeds=2)
    for one in summary["tasks"]["open_drawer"]["per_seed"]:
        one |= seed
    assert effect(summary) == "nothing"
    what = "was not trained" if seed.get("stop_reason") == "no_go" else "learned nothing"
    assert verdict(summary).startswith(f"PPO in imagination {what}: ")
    assert said in verdict(summary)
    assert "In the simulator success goes from" in verdict(summary)
    assert "no clear effect" not in verdict(summary)


def test_a_seed_that_learned_nothing_among_others_is_a_warning(tmp_path: Path) -> None:
    summary = _summary(tmp_path, KINDS["unclear"], seeds=2)
    summary["tasks"]["open_drawer"]["per_seed"][1] |= {"kept": 0, "stop_reason": "min_time"}
    assert effect(summary) == "unclear"
    assert any("PPO learned nothing on open drawer (seed 1: it ended before" in note for note in warnings(summary))


def test_a_policy_that_is_perfect_in_dreams_and_in_the_simulator_has_not_learned_nothing_by_that(
    tmp_path: Path,
) -> None:
    summary = _summary(tmp_path, Task(Policy(1.0), Policy(1.0)))
    assert effect(summary) == "unclear"


# Warnings -------------------------------------------------------------------------------------------------------------


def test_dreams_that_promise_too_little_are_warned_of_like_those_that_promise_too_much(tmp_path: Path) -> None:
    modest = Task(Policy(0.5), Policy(0.9), imagined=(0.3, 0.4))
    loud = Task(Policy(0.5), Policy(0.6), imagined=(0.5, 0.99))
    fair = Task(Policy(0.5), Policy(0.9))
    notes = warnings(_summary(tmp_path, modest, loud, fair))
    less, more = (next(n for n in notes if f"succeed {how} often" in n) for how in ("less", "more"))
    assert "open drawer (-" in less
    assert "move slider left (+" in more
    assert not any("turn on led" in note for note in notes)


def test_success_that_another_simulator_takes_is_named_with_its_points(tmp_path: Path) -> None:
    lost, kept = KINDS["skill"]._replace(judged=0.5), KINDS["skill"]._replace(judged=1.0)
    summary = _summary(tmp_path, lost, kept, seeds=2)
    (note,) = [note for note in warnings(summary) if "Transfer" in note]
    gap = summary["tasks"]["open_drawer"]["judged"][CALVIN]["gap"]["ppo"]["value"]
    assert note.startswith(f"Transfer loses success in {CALVIN}, in points, on open drawer (BC -")
    assert f"PPO {100 * gap:+.0f})" in note
    assert "move slider left" not in note


def _moving(model: float) -> Json:
    scores = {"share": [0.1, 0.2, 0.0], "still": [10.0, 10.0, None], "average": [13.0, 12.0, None]}
    return {"moving": {"rgb_static": scores | {"model": [model, model, None]}}}


def test_a_world_model_that_draws_what_moves_no_better_than_the_background_is_warned_of(tmp_path: Path) -> None:
    (note,) = warnings(_summary(tmp_path, KINDS["skill"], world_model={"per_seed": [_moving(12.4), _moving(15.0)]}))
    assert "rgb static in 1 of 2 seeds (12.4 dB; 10.0 the last frame seen, 12.5 the average frame)" in note
    assert not warnings(_summary(tmp_path, KINDS["skill"], world_model={"per_seed": [_moving(12.6)]}))
    # of runs from before it was measured nothing is said
    assert not warnings(_summary(tmp_path, KINDS["skill"], world_model={"per_seed": [{"probes": {}}]}))


# Tables ---------------------------------------------------------------------------------------------------------------


def test_the_table_of_sooner_success_has_both_policies_at_every_horizon(tmp_path: Path) -> None:
    summary = _summary(tmp_path, KINDS["noise"], KINDS["unclear"])
    table = within_table(summary)
    assert table.columns[:4] == ["task", "other sampler", "in 72: BC, PPO", "points"]
    # 150 of 152 steps would say the first table's numbers once more
    assert len(table.columns) == 7
    assert not any("150" in column for column in table.columns)
    assert table.columns[-1] == "median steps to success: BC, PPO"
    row, one_sampler = table.rows
    early = summary["tasks"]["open_drawer"]["within"]["72"]
    assert row[2] == f"{100 * early['bc']['rate']:.0f}, {100 * early['ppo']['rate']:.0f}"
    assert one_sampler[1] == "-"
    time = summary["tasks"]["open_drawer"]["time"]
    assert row[-1] == f"{time['bc']:.0f}, {time['ppo']:.0f}"
    assert table.total[0] == "average"


def test_where_no_clone_had_a_choice_the_table_has_no_word_of_samplers(tmp_path: Path) -> None:
    table = within_table(_summary(tmp_path, KINDS["unclear"], KINDS["unclear"]))
    assert table.columns[:2] == ["task", "in 72: BC, PPO"]
    assert {len(row) for row in table.body} == {len(table.columns)}
    assert "sampler" not in table.about


def test_each_seed_is_told_and_in_how_many_the_effect_is_clear(tmp_path: Path) -> None:
    summary = _summary(tmp_path, KINDS["skill"], KINDS["skill"], seeds=3)
    tasks = list(summary["tasks"].values())
    # one seed in which nothing changed
    for task in tasks:
        task["per_seed"][1] |= {"ppo": 0.5, "difference": {"value": 0.0, "interval": [-0.1, 0.1]}}
    table = seeds_table(summary)
    assert [row[0] for row in table.rows] == ["0", "1", "2"]
    assert table.rows[1][2:4] == ("50", "+0 [-7, +7]")
    assert table.total[3] == "above 0 in 2 of 3"
    rates = [seed["ppo"] for task in tasks for seed in task["per_seed"]]
    assert table.total[2] == f"{100 * sum(rates) / len(rates):.0f}"
    # a seed that has not come to the second task says nothing yet
    tasks[1]["per_seed"].pop()
    assert [row[0] for row in seeds_table(summary).rows] == ["0", "1"]
    assert not seeds_table(_summary(tmp_path / "one", KINDS["skill"])).rows


def test_both_simulators_stand_side_by_side_with_the_gap(tmp_path: Path) -> None:
    summary = _summary(tmp_path, KINDS["skill"]._replace(judged=0.8), KINDS["skill"])
    table = judged_table(summary, CALVIN)
    assert [row[0] for row in table.rows] == ["open_drawer"]
    assert not table.total
    there = summary["tasks"]["open_drawer"]["judged"][CALVIN]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["n"] == "50"
    assert row["Calvin-v0: PPO"].startswith(f"{100 * there['ppo']['rate']:.0f} [")
    assert row["PPO gap"].startswith(f"{100 * there['gap']['ppo']['value']:+.0f} [")
    assert CALVIN in table.title
    # both sides of the gap from the same 50 start states, of the 100 of the first table
    bc, ppo = (f"{100 * there['shared'][policy]['rate']:.0f}" for policy in ("bc", "ppo"))
    assert row["own simulator: BC, PPO"] == f"{bc}, {ppo}"
    early = there["within"]["72"]
    assert row["in 72: BC, PPO"] == f"{100 * early['bc']['rate']:.0f}, {100 * early['ppo']['rate']:.0f}"
    assert not any("tolerance" in column for column in table.columns)


def test_another_simulator_s_table_says_by_whose_criterion_it_judges(tmp_path: Path) -> None:
    summary = _summary(tmp_path, KINDS["skill"]._replace(judged=0.8)) | {"env": "worldaction/PlayTable-v0"}
    there = summary["tasks"]["open_drawer"]["judged"][CALVIN]
    assert "criterion (tolerance 0)" not in judged_table(summary, CALVIN).about
    there["oracle"] = {"72": there["within"]["110"], "152": there["within"]["150"]}
    table = judged_table(summary, CALVIN)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert "judged there by the run's own criterion" in table.about
    assert f"of {CALVIN} by CALVIN's criterion (tolerance 0)" in table.about
    assert "PlayTable-v0: BC, PPO" in row
    lenient = there["within"]["110"]
    shown = f"{100 * lenient['bc']['rate']:.0f}, {100 * lenient['ppo']['rate']:.0f}"
    assert row["tolerance 0, in 72: BC, PPO"] == shown
    assert "tolerance 0, in 152: BC, PPO" in row


def test_a_summary_from_before_has_no_success_from_the_shared_starts(tmp_path: Path) -> None:
    summary = _summary(tmp_path, KINDS["skill"]._replace(judged=0.8))
    del summary["tasks"]["open_drawer"]["judged"][CALVIN]["shared"]
    table = judged_table(summary, CALVIN)
    assert dict(zip(table.columns, table.rows[0], strict=True))["own simulator: BC, PPO"] == "-"


def test_what_ends_a_run_fits_a_terminal(tmp_path: Path) -> None:
    summary = _summary(tmp_path, *[KINDS["skill"]._replace(judged=0.8)] * 3, seeds=3)
    lines = console_table(summary).splitlines()
    assert max(map(len, lines)) <= 120
    assert sum(line.startswith("task") for line in lines) == 4  # one of them of times in dreams
    assert sum(line.startswith("average") for line in lines) == 4


def test_a_summary_from_before_has_its_one_table_and_no_word_of_skill(tmp_path: Path) -> None:
    summary = _summary(tmp_path, KINDS["skill"], KINDS["skill"])
    new = ("limit", "within", "time", "bc_other", "samplers", "judged", "difference_stochastic", "dreamed_time")
    for told in (*summary["tasks"].values(), summary["average"]):
        for key in new:
            told.pop(key, None)
    assert effect(summary) == "raised"
    assert "PPO in imagination raised success in the simulator: from" in verdict(summary)
    assert sum(line.startswith("task") for line in console_table(summary).splitlines()) == 1
    assert warnings(summary) == []


# Dreams of held-out attempts ------------------------------------------------------------------------------------------


def test_a_policy_that_was_not_trained_is_told_though_its_rule_was_another(tmp_path: Path) -> None:
    summary = _summary(tmp_path, KINDS["unclear"])
    why = "80 % of dreams of successes end in success, at least 95 % should"
    old = {"succeeded": held_out(20, 0.8), "failed": held_out(10, 0.1), "no_go": [why]}
    summary["tasks"]["open_drawer"]["per_seed"][0] |= {"verdicts": old, "stop_reason": "no_go", "kept": 0}
    assert f"No-go for dreams of open drawer, in which PPO was not trained: {why}." in warnings(summary)


def test_a_summary_warns_of_a_no_go_by_task_and_seed_and_of_what_is_not_known(tmp_path: Path) -> None:
    summary = _summary(tmp_path, KINDS["skill"], KINDS["skill"], KINDS["skill"], seeds=3)
    good = {"succeeded": held_out(20, 1.0), "failed": held_out(10, 0.0)}
    poor = {"succeeded": held_out(20, 1.0), "failed": held_out(10, 0.4)}
    blind = {"succeeded": held_out(20, 0.8), "failed": held_out(10, 0.9)}
    untried = {"succeeded": held_out(20, 1.0), "failed": held_out(0, None)}
    told = {
        "open_drawer": (good, poor, blind),
        "move_slider_left": (untried, {"skipped": "no window"}, good),
    }
    for name, per_seed in told.items():
        for seed, found in zip(summary["tasks"][name]["per_seed"], per_seed, strict=True):
            word, why = trust(found, SuccessConfig())
            seed["verdicts"] = found | {"trust": word, "why": why}
    summary["tasks"]["turn_on_led"]["per_seed"][0] |= {"verdicts": blind | {"trust": "no-go", "why": ["?"]}}
    summary["tasks"]["turn_on_led"]["per_seed"][0] |= {"stop_reason": "no_go", "kept": 0}
    said = warnings(summary)
    assert said[0].startswith(
        "Dreams of open drawer, seed 1 are to be taken with care: 40 % of 30 dreams of 10 failed attempts"
    )
    assert said[1].startswith(
        "No-go for dreams of open drawer, seed 2, in which PPO was trained all the same: 80 % of dreams of 20 attempts"
        " that succeeded and 90 % of 10 that failed end in success, a difference of -10.0 points"
    )
    assert "No-go for dreams of turn on led, seed 0, in which PPO was not trained: ?." in said
    few = "no held-out attempt failed, where 3 are the fewest that tell"
    assert f"How true dreams of move slider left, seed 0 are is not known: {few}." in said
    assert "How true dreams of move slider left, seed 1 are is not known: no window." in said
    assert len(said) == 5
    table = held_out_table(summary)
    words = ["go", "with care", "no-go", "not known", "not known", "go", "no-go"]
    assert [row[-1] for row in table.rows] == words
    assert table.rows[1][:3] == ("open_drawer", "1", "20")
    assert table.rows[1][5].startswith("40 [")
    console = console_table(summary)
    assert "No-go for dreams of open drawer, seed 2" in " ".join(console.split())
    assert max(map(len, console.splitlines())) <= 120


# Studies without a simulator ------------------------------------------------------------------------------------------


def _jurors(right: float | None, wrong: float | None) -> dict[str, Any]:
    told = {
        "succeeded": {"attempts": 9, "rate": right},
        "failed": {"attempts": 3 if wrong is not None else 0, "rate": wrong},
    }
    return {"models": 2, "held_out": 7, "tasks": {"reach": told}}


@pytest.mark.parametrize(
    ("right", "wrong", "blind"), [(0.9, 0.1, False), (0.9, 0.6, True), (0.2, None, True), (0.8, None, False)]
)
def test_jurors_that_cannot_tell_successes_from_failures_are_warned_of(
    right: float, wrong: float | None, blind: bool
) -> None:
    said = [note for note in warnings({"jurors": _jurors(right, wrong)}) if "Jurors hardly tell" in note]
    assert bool(said) == blind
