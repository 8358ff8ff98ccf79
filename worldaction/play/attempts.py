"""A recorded set as a study of its tasks sees it: tasks with names, attempts whose outcome is known, some held out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from worldaction.config import RecordedConfig
from worldaction.errors import UserError
from worldaction.extension import load
from worldaction.io.sealed_json import read_json
from worldaction.play.held_out import EVERY, FEW, held_out_of
from worldaction.play.layout import Segment
from worldaction.play.readers.source import Recording, Source, Wrapped
from worldaction.spec import Layout

OPTION: Final = "--recorded.success"
LONGEST: Final = 80
"""Letters of a task's name, which is the name of folders."""

Judge = Callable[[Source, int, Segment], bool | None]
"""Called with a set, the number of an episode and an attempt in it: whether it succeeded; None if that is not known."""


def task_name(words: str) -> str:
    """What a task is called in options, folders and results: its sentence in small letters, "reach_the_red_block".

    Raises:
        UserError: there is no letter in it.
    """
    name = re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")[:LONGEST].strip("_")
    if not name:
        raise UserError(f"task {words!r} has no letter or digit of a-z and 0-9; name it otherwise")
    return name


class Attempts(Wrapped):
    """A source whose attempts have named tasks and outcomes, and of which some are held out; see `Source`.

    A set that holds out episodes itself stays as it is. Of another one, a share of the attempts at each task is, of
    those that succeeded and of those that failed: spread over the recording, for what was recorded side by side is
    alike.

    Args:
        source: the data set.
        layout: what `check_conventions` says of its frames; by default what the set says.
        config: how success is known.
        share: of the attempts at each task and of each outcome that are held out.
        only: what the task is called, of a set that has one and of an environment that calls it otherwise.
        least: how many are held out at least, as far as they are no more than half.

    Raises:
        UserError: nothing says which attempts succeeded.
    """

    def __init__(
        self,
        source: Source,
        *,
        layout: Layout | None = None,
        config: RecordedConfig | None = None,
        share: float = 0.2,
        only: str = "",
        least: int = FEW,
    ) -> None:
        config = config or RecordedConfig()
        super().__init__(source)
        self.layout = layout or source.layout
        self.episodes = _held_out(_called(_judged(source, config.success), only), share, least)


# Outcomes -------------------------------------------------------------------------------------------------------------


def _judged(source: Source, success: str) -> list[Recording]:
    """The episodes, their attempts named and judged."""
    judge = _judge(source, success)
    found = []
    for number, episode in enumerate(source.episodes):
        segments = tuple(_named(s, judge(source, number, s)) for s in episode.segments)
        found.append(replace(episode, segments=segments))
    attempts = [segment for episode in found for segment in episode.segments]
    if not attempts:
        raise UserError(f"{source.path} names no task, so there is nothing to learn but a world model; annotate some")
    if all(attempt.success is None for attempt in attempts):
        raise UserError(
            f"{source.path} does not say which of its {len(attempts)} attempts succeeded. If each ends in success, as"
            f" demonstrations do, add {OPTION} ends; else give {OPTION} labels.json, which says true or false by the"
            f" number of the episode, or {OPTION} module:function"
        )
    return found


def _called(episodes: list[Recording], only: str) -> list[Recording]:
    """The episodes of a single task under the name that an environment gives it."""
    if not only or len({segment.task for episode in episodes for segment in episode.segments}) > 1:
        return episodes
    return [replace(e, segments=tuple(replace(s, task=only) for s in e.segments)) for e in episodes]


def _named(segment: Segment, success: bool | None) -> Segment:
    name = task_name(segment.task)
    # people's words are kept where the name is not theirs
    sentence = segment.sentence or (segment.task if segment.task != name else "")
    return replace(segment, task=name, success=success, sentence=sentence)


def _judge(source: Source, text: str) -> Judge:
    """What says whether an attempt succeeded."""
    if text == "recorded":
        return lambda _, number, segment: segment.success
    if text == "ends":
        return lambda _, number, segment: segment.success is not False
    if text.endswith(".json"):
        return _labels(source, Path(text))
    asked: Judge = load(text, OPTION)

    def judge(source: Source, number: int, segment: Segment) -> bool | None:
        said = asked(source, number, segment)
        if said not in (True, False, None):
            raise UserError(f"{OPTION} {text} said {said!r} of episode {number}; it has to say True, False or None")
        return None if said is None else bool(said)

    return judge


def _labels(source: Source, path: Path) -> Judge:
    """Outcomes by the number of the episode, from a file."""
    if not path.exists():
        raise UserError(f"{OPTION} {path}: there is no such file")
    labels: Any = read_json(path)
    last = len(source.episodes) - 1
    numbers = {str(number) for number in range(last + 1)}
    if not isinstance(labels, dict):
        raise UserError(f'{OPTION} {path} is no mapping; write {{"0": true, "1": false, ...}} by number of episode')
    for number, said in labels.items():
        if number not in numbers:
            raise UserError(f"{OPTION} {path}: there is no episode {number!r}; {source.path} has 0 to {last}")
        if said is not None and not isinstance(said, bool):
            raise UserError(f"{OPTION} {path}: episode {number} is {said!r}; write true, false or null")
    # who labels some says nothing of the others
    return lambda _, number, segment: labels.get(str(number))


# What is held out -----------------------------------------------------------------------------------------------------


def _held_out(episodes: Sequence[Recording], share: float, least: int) -> Sequence[Recording]:
    if any(one.split == "validation" for one in episodes):
        return episodes
    groups: dict[tuple[str, bool | None] | None, list[int]] = {}
    for number, episode in enumerate(episodes):
        first = next(iter(episode.segments), None)
        groups.setdefault(None if first is None else (first.task, first.success), []).append(number)
    apart = {number for group in groups.values() for number in _spread(group, share, least)}
    return [replace(one, split="validation") if n in apart else one for n, one in enumerate(episodes)]


def _spread(group: Sequence[int], share: float, least: int) -> list[int]:
    """Of some episodes so large a share, at equal distances; so many at least, and no more than half."""
    count = held_out_of(len(group), share, least=least) if share else len(group) // EVERY
    return [group[math.floor((k + 0.5) * len(group) / count)] for k in range(count)]
