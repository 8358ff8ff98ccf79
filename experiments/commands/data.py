"""`worldaction data inspect | check | convert`: data sets of every format, on the command line."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worldaction.errors import UserError
from worldaction.signals import how_to_go_on

if TYPE_CHECKING:
    from worldaction.play.readers.source import Source
    from worldaction.play.writers.base import FolderWriter

KINDS: Final = ("store", "calvin", "lerobot")


HELP = "inspect, check and convert data sets of every format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `data` and its commands."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    inspect = verbs.add_parser("inspect", help="what is in a data set, and what its actions mean")
    inspect.add_argument("--episodes", action="store_true", help="list all episodes: number, task and how each ended")
    inspect.add_argument("--sheet", type=Path, help="write a picture of frames from all over the set to this PNG")
    check = verbs.add_parser("check", help="read every frame; exit status 1 if something is wrong")
    check.add_argument("--replay", type=int, default=0, metavar="N", help="replay N windows in the embedded table")
    check.add_argument("--manifest", type=Path, help="write checksums of all files, or compare if it exists")
    convert = verbs.add_parser("convert", help="write a data set in another format")
    for verb in (inspect, check, convert):
        verb.add_argument("path", type=Path, help="the folder or file of the data set")
        verb.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the format's reader")
        verb.add_argument("--strict", action="store_true", help="refuse a set of which anything is damaged or missing")
    convert.add_argument("out", type=Path, help="the folder to create")
    convert.add_argument("--to", choices=KINDS, default="store", help="the format to write (default: store)")
    convert.add_argument(
        "--image-size",
        type=int,
        help="side of the images in pixels (default: as recorded, a store: smallest)",
    )
    convert.add_argument(
        "--scale", choices=("minmax",), help="bring actions into [-1, 1] by their smallest and largest"
    )
    convert.add_argument("--video", default="h264", help="for lerobot: h264, h264-420, av1 or lossless (default: h264)")
    convert.add_argument("--rate", type=float, help="frames per second, where the data set does not say")


def run(chosen: argparse.Namespace) -> None:
    """Do what was asked for.

    Raises:
        UserError: the data set or an option is wrong.
        SystemExit: `check` found problems, status 1.
    """
    from worldaction.io.recorder import setup_logging

    setup_logging()
    again = "goes on" if chosen.verb == "convert" and chosen.to == "store" else "starts again"
    with how_to_go_on(f"the same command {again}"):
        {"inspect": _inspect, "check": _check, "convert": _convert}[chosen.verb](chosen)


def _open(chosen: argparse.Namespace) -> Source:
    from envs.tasks import SENTENCES
    from worldaction.play.readers.source import open_source

    options: dict[str, str] = {}
    for option in chosen.option:
        name, equals, value = option.partition("=")
        if not equals:
            raise UserError(f"--option {option} has no value; give NAME=VALUE, such as language=lang_annotations")
        if name in ("path", "strict", "names"):
            raise UserError(f"--option {option}: the reader has no such option; see docs/data.md")
        options[name] = value
    return open_source(chosen.path, strict=chosen.strict, names=SENTENCES, **options)


def _inspect(chosen: argparse.Namespace) -> None:
    from worldaction.play.inspect.summary import describe, draw_sheet, list_episodes

    source = _open(chosen)
    print(describe(source))
    if chosen.episodes:
        print(f"\n{list_episodes(source)}")
    if chosen.sheet is not None:
        draw_sheet(source, chosen.sheet)
        print(f"\npicture   {chosen.sheet}")


def _check(chosen: argparse.Namespace) -> None:
    from envs.labels import done_instead
    from worldaction.play.inspect.check import check_frames

    if chosen.replay < 0:
        raise UserError(f"--replay {chosen.replay}: give 0 or more windows")
    problems = [] if chosen.manifest is None else _compare(chosen)
    source = _open(chosen)
    problems += source.skipped
    with _progress(source, "checking") as bar:
        found = check_frames(source, bar.update, judge=done_instead)
    problems += found.problems
    if chosen.replay:
        from envs.playtable.tools.data_replay import replay_source

        replays = replay_source(source, chosen.replay)
        print("\n".join(replays.lines()))
        problems += replays.problems()
    for warning in found.warnings:
        print(f"warning   {warning}")
    for problem in problems:
        print(f"problem   {problem}")
    if problems:
        print(f"verdict   {len(problems)} problem{'s' * (len(problems) > 1)}")
        raise SystemExit(1)
    total = sum(episode.length for episode in source.episodes)
    print(f"verdict   OK: {total:,} frames in {len(source.episodes)} episodes, {source.format}")


def _compare(chosen: argparse.Namespace) -> list[str]:
    """What differs from the manifest, said before the set is opened: a damaged set may not be opened at all."""
    from worldaction.play.inspect.check import manifest

    if not chosen.path.exists():
        return []
    compared = chosen.manifest.exists()
    problems = manifest(chosen.path, chosen.manifest)
    print(f"manifest  {'compared with' if compared else 'written to'} {chosen.manifest}")
    for problem in problems:
        print(f"          {problem}")
    return [f"{len(problems)} file{'s' * (len(problems) > 1)} not as in {chosen.manifest}"] if problems else []


def _convert(chosen: argparse.Namespace) -> None:
    source = _open(chosen)
    if chosen.scale is not None:
        from worldaction.play.action_scaling import scale_to_range

        source = scale_to_range(source)
    size = chosen.image_size
    if size is not None and source.layout.cameras and not 1 <= size <= source.image_size:
        raise UserError(f"--image-size {size}: the images of {chosen.path} can be 1 to {source.image_size} pixels")
    if chosen.out.exists():
        raise UserError(f"{chosen.out} exists already; delete it or choose another path")
    from envs.labels import done_instead

    if chosen.to == "store":
        from worldaction.play.convert import convert

        # a store has one size for all cameras
        size = source.image_size if size is None else size
        with _progress(source, "converting to store") as bar:
            convert(source, chosen.out, image_size=size, progress=bar.update, strict=chosen.strict, judge=done_instead)
    else:
        from worldaction.play.inspect.watch import Watched
        from worldaction.play.writers.base import copy

        watched = Watched(source, judge=done_instead)
        with _sink(source, chosen) as sink, _progress(source, f"converting to {chosen.to}") as bar:
            copy(watched, sink, image_size=size, order=_by_scene(source), progress=bar.update)
            watched.refuse_leaks()
        watched.warn()
    print(f"{chosen.out}: {bar.done:,} frames, {chosen.to}")
    if left_out := getattr(source, "left_out", ()):
        print(f"not carried over: {', '.join(left_out)}")


def _sink(source: Source, chosen: argparse.Namespace) -> FolderWriter:
    """A set in a format that cannot be continued: an interrupted conversion starts again."""
    from envs.tasks import TASKS

    sentences = {name: task.description for name, task in TASKS.items()}
    if chosen.to == "calvin":
        from worldaction.play.writers.calvin import CalvinWriter

        return CalvinWriter(chosen.out, layout=source.layout, sentences=sentences)
    from worldaction.play.writers.lerobot import LeRobotWriter

    if (rate := source.rate if chosen.rate is None else chosen.rate) is None:
        raise UserError(f"{chosen.path} gives no frame rate, which LeRobot sets have; add --rate")
    return LeRobotWriter(
        chosen.out,
        layout=source.layout,
        rate=rate,
        video=chosen.video,
        source=source.origin.source,
        renderer=source.origin.renderer,
        sentences=sentences,
    )


def _by_scene(source: Source) -> list[int]:
    """Numbers of the episodes, those of a scene together, because a CALVIN set holds each scene in one run."""
    scenes = list(dict.fromkeys(episode.scene for episode in source.episodes))
    return sorted(range(len(source.episodes)), key=lambda number: scenes.index(source.episodes[number].scene))


def _progress(source: Source, what: str) -> AbstractContextManager[Any]:
    from worldaction.io.recorder import progress

    return progress(sum(episode.length for episode in source.episodes), what, "frame")
