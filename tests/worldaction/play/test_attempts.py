"""Attempts of a recorded set: named, judged as the user says, and some of each outcome held out."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_world import TASKS, record

from worldaction.config import RecordedConfig
from worldaction.errors import UserError
from worldaction.play.attempts import Attempts, task_name
from worldaction.play.convert import convert
from worldaction.play.held_out import HeldOut
from worldaction.play.outcomes import attempts_at, frames_of_success, other_side
from worldaction.play.readers.source import open_source
from worldaction.play.store import PlayStore

RED, BLUE = map(task_name, TASKS)


def attempts(path: Path, *, success: str = "recorded", share: float = 0.2) -> Attempts:
    return Attempts(open_source(path), config=RecordedConfig(success=success), share=share)


def outcomes(found: Attempts) -> list[bool | None]:
    return [episode.segments[0].success for episode in found.episodes]


# Names ----------------------------------------------------------------------------------------------------------------


def test_a_sentence_becomes_a_name_of_folders_and_stays_what_was_said(tmp_path: Path) -> None:
    assert task_name("Reach the red block, please!") == "reach_the_red_block_please"
    assert task_name("open_drawer") == "open_drawer"
    found = attempts(record(tmp_path / "s", 4))
    assert [(e.segments[0].task, e.segments[0].sentence) for e in found.episodes[:2]] == [
        (RED, TASKS[0]),
        (BLUE, TASKS[1]),
    ]


def test_a_task_without_a_letter_has_no_name() -> None:
    with pytest.raises(UserError, match=r"task '...' has no letter or digit"):
        task_name("...")


# Outcomes -------------------------------------------------------------------------------------------------------------


def test_what_a_set_says_of_its_attempts_is_taken(tmp_path: Path) -> None:
    said: list[bool | None] = [True, False, None, True]
    found = attempts(record(tmp_path / "s", 4, outcomes=said))
    assert outcomes(found) == said


def test_a_set_that_says_nothing_is_refused_with_every_way_to_say_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"which of its 4 attempts succeeded.*ends.*labels\.json.*module:function"):
        attempts(record(tmp_path / "s", 4, outcomes=[None] * 4))


def test_ends_are_successes_where_nothing_says_that_they_are_failures(tmp_path: Path) -> None:
    found = attempts(record(tmp_path / "s", 3, outcomes=[None, False, True]), success="ends")
    assert outcomes(found) == [True, False, True]


def test_labels_of_a_file_are_by_number_of_episode_and_say_nothing_of_others(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps({"0": True, "2": False, "3": None}))
    found = attempts(record(tmp_path / "s", 4, outcomes=[None, True, None, True]), success=f"{tmp_path}/labels.json")
    assert outcomes(found) == [True, None, False, None]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"9": True}, "there is no episode '9'; .* has 0 to 3"),
        ({"0": "yes"}, "episode 0 is 'yes'; write true, false or null"),
        ([True], "is no mapping"),
    ],
)
def test_labels_that_fit_no_episode_or_are_none_are_refused(tmp_path: Path, labels: object, words: str) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(UserError, match=words):
        attempts(record(tmp_path / "s", 4), success=f"{tmp_path}/labels.json")


def test_a_function_of_the_user_judges_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_judge.py").write_text(
        "def near(source, number, segment):\n"
        "    (block,) = source.blocks(number, image_size=0)\n"
        "    return bool(abs(block['robot_obs'][segment.stop - 1, 0]) > 0.5) if number else None\n"
        "def odd(source, number, segment):\n"
        "    return 'perhaps'\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    path = record(tmp_path / "s", 6, outcomes=[None] * 6)
    said = outcomes(attempts(path, success="my_judge:near"))
    ends = [next(open_source(path).blocks(n, image_size=0))["robot_obs"][-1, 0] for n in range(6)]
    assert said == [None, *(abs(end) > 0.5 for end in ends[1:])]
    with pytest.raises(UserError, match="my_judge:odd said 'perhaps' of episode 0"):
        attempts(path, success="my_judge:odd")


def test_a_set_without_attempts_has_nothing_to_learn_but_a_world_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names no task"):
        attempts(record(tmp_path / "s", 4, tasks=()))


# What is held out -----------------------------------------------------------------------------------------------------


def test_a_share_of_each_task_and_outcome_is_held_out_spread_over_the_recording(tmp_path: Path) -> None:
    said = [n % 4 < 2 for n in range(80)]
    found = attempts(record(tmp_path / "s", 80, outcomes=[*said]), share=0.25)
    apart = [n for n, episode in enumerate(found.episodes) if episode.split == "validation"]
    for task in (RED, BLUE):
        for success in (True, False):
            group = [n for n in apart if (s := found.episodes[n].segments[0]).task == task and s.success is success]
            assert len(group) == 5
            # neither at one end nor side by side
            assert max(b - a for a, b in itertools.pairwise(group)) <= 24
    assert len(apart) == 20


def test_of_few_attempts_three_are_held_out_and_never_more_than_half(tmp_path: Path) -> None:
    found = attempts(record(tmp_path / "s", 8), share=0.1)
    by_task = [e.segments[0].task for e in found.episodes if e.split == "validation"]
    assert sorted(by_task) == sorted([RED, BLUE] * 2)


def test_a_set_that_holds_episodes_out_itself_stays_as_it_is(tmp_path: Path) -> None:
    path = record(tmp_path / "s", 8, validation=1)
    assert [e.split for e in attempts(path).episodes] == ["training"] * 7 + ["validation"]


# What frames show -----------------------------------------------------------------------------------------------------


def test_the_last_frames_of_a_success_show_it_and_nothing_else_does(tmp_path: Path) -> None:
    store = PlayStore.open(record(tmp_path / "s", 4, outcomes=[True, True, False, None], frames=20))
    done = frames_of_success(store, TASKS[0], last=3)
    # episodes 0 and 2 are of this task, and 2 failed
    assert done.nonzero().squeeze(-1).tolist() == [17, 18, 19]
    assert frames_of_success(store, TASKS[0], last=50).sum() == 10
    assert [s.start for s in attempts_at(store, TASKS[1], "training")] == [20]
    assert [s.start for s in attempts_at(store, TASKS[1], "training", known=False)] == [20, 60]


def test_jurors_learn_from_what_others_do_not(tmp_path: Path) -> None:
    store = PlayStore.open(record(tmp_path / "s", 8, validation=2))
    side = other_side(store)
    assert [e.split for e in side.episodes] == ["validation"] * 6 + ["training"] * 2
    assert [e.split for e in store.episodes] == ["training"] * 6 + ["validation"] * 2
    assert torch.equal(side.frames["action"], store.frames["action"])


@pytest.mark.parametrize("kind", [HeldOut, Attempts])
def test_a_store_that_changed_since_it_was_written_is_not_converted(tmp_path: Path, kind: type[Any]) -> None:
    path = record(tmp_path / "s", 8)
    frames = path / "frames/action.memmap"
    changed = bytearray(frames.read_bytes())
    changed[5] ^= 128
    frames.write_bytes(bytes(changed))
    with pytest.raises(UserError, match=r"action\.memmap has changed since it was written"):
        convert(kind(open_source(path)), tmp_path / "t", image_size=1)
