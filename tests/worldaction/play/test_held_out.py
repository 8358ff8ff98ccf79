"""Attempts on which nothing is trained are chosen before anything is: of every task, of both outcomes, by the seed."""

from __future__ import annotations

from collections import Counter

import pytest

from worldaction.play.held_out import FEW, split_attempts
from worldaction.play.layout import Episode
from worldaction.spec import Kind, Split

Attempt = tuple[str, bool]


def made(*parts: tuple[Kind, str, bool, int], validation: tuple[int, ...] = ()) -> tuple[list[Episode], list[Attempt]]:
    """So many episodes of each kind, task and outcome, in order."""
    episodes: list[Episode] = []
    attempts: list[Attempt] = []
    for kind, task, success, count in parts:
        for _ in range(count):
            split: Split = "validation" if len(episodes) in validation else "training"
            episodes.append(Episode(10 * len(episodes), 10, kind, split))
            attempts.append((task, success))
    return episodes, attempts


def apart(play: tuple[list[Episode], list[Attempt]], *, share: float = 0.2, demos: int = 0, seed: int = 0) -> list[int]:
    """Numbers of the episodes that are held out."""
    splits = split_attempts(*play, share=share, demos=demos, seed=seed)
    return [number for number, split in enumerate(splits) if split == "validation"]


PLAY = made(
    ("play", "", False, 10),
    ("near_miss", "a", True, 40),
    ("near_miss", "a", False, 20),
    ("near_miss", "b", True, 50),
    ("near_miss", "b", False, 4),
    ("demo", "a", True, 6),
    validation=(9, 12, 70),
)


def test_a_share_of_the_successes_and_of_the_failures_of_each_task_is_held_out() -> None:
    episodes, attempts = PLAY
    count = Counter(attempts[n] for n in apart(PLAY) if episodes[n].kind == "near_miss")
    # of four failures no more than half, or nothing would be left to learn from
    assert count == {("a", True): 8, ("a", False): 4, ("b", True): 10, ("b", False): 2}


def test_a_few_are_held_out_however_small_the_share_and_none_without_one() -> None:
    episodes, attempts = PLAY
    count = Counter(attempts[n] for n in apart(PLAY, share=0.01) if episodes[n].kind == "near_miss")
    assert count == {("a", True): FEW, ("a", False): FEW, ("b", True): FEW, ("b", False): 2}
    assert apart(PLAY, share=0.0) == [9]


def test_play_keeps_its_own_split_and_attempts_get_theirs_here() -> None:
    held = set(apart(PLAY))
    assert [n for n in range(10) if n in held] == [9]
    assert {12, 70} - set(apart(PLAY, share=0.0)) == {12, 70}


@pytest.mark.parametrize("demos", [0, 2])
def test_the_last_demonstrations_are_held_out_and_the_first_are_cloned(demos: int) -> None:
    last = len(PLAY[0])
    assert [n for n in apart(PLAY, demos=demos) if PLAY[0][n].kind == "demo"] == [*range(last - demos, last)]


def test_the_draw_is_the_seed_s() -> None:
    assert apart(PLAY, seed=1) == apart(PLAY, seed=1)
    assert apart(PLAY, seed=1) != apart(PLAY, seed=2)
