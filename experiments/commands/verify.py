"""`worldaction verify`: is a run, a play store, a policy or a model what it was when it was written?"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from experiments.commands.jury import FILE as JURY
from worldaction.errors import UserError

HELP = "compare a run, a play store, a policy or a model with the checksums from when it was written"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("path", type=Path, help="the folder of a run, a play store, a policy or a world model")


def run(chosen: argparse.Namespace) -> None:
    """Read every byte and say what has changed.

    Raises:
        SystemExit: something has, status 1.
        UserError: the folder holds nothing of these.
    """
    problems = 0
    for problem in problems_of(chosen.path):
        print(f"problem   {problem}")
        problems += 1
    if problems:
        print(f"verdict   {problems} problem{'s' * (problems > 1)}")
        raise SystemExit(1)
    print(f"verdict   OK: {chosen.path} is as it was written")


def problems_of(path: Path) -> Iterator[str]:
    """What is wrong with a folder, a line each.

    Args:
        path: of a run, a play store, a policy or a world model.

    Raises:
        UserError: it holds nothing of these.
    """
    if (path / "store.json").exists():
        found = _store(path)
    elif (path / "model.safetensors").exists():
        found = _weights(path)
    elif (path / "env.json").exists() or (path / "artefacts").exists():
        found = _run(path)
    else:
        raise UserError(f"{path} holds no run, play store, policy or model of this library; give the folder of one")
    try:
        yield from found
    except UserError as error:
        yield str(error)


def _store(path: Path) -> Iterator[str]:
    from worldaction.play.store import PlayStore

    PlayStore.open(path).verify()
    yield from ()


def _weights(path: Path) -> Iterator[str]:
    """Nothing is built, so that no code of the user's is needed."""
    from worldaction.io.atomic import WEIGHTS, load_tensors
    from worldaction.io.sealed_json import read_json

    about = read_json(path / "config.json", dict[str, object])
    load_tensors(path / "model.safetensors", expected=str(about[WEIGHTS]) if WEIGHTS in about else None)
    yield from ()


def _run(path: Path) -> Iterator[str]:
    from experiments.study.run import Run
    from experiments.study.settings import load_study

    # not opened, for what it was made from may be elsewhere
    run = Run(load_study(path), path)
    for part in run.arms().values() or [run]:
        finished = _finished(part.folder)
        for place, artefact in part.artefacts().items():
            damage = artefact.damage()
            yield from damage
            if artefact.complete:
                yield from _differing(part.shown(place, artefact))
            elif finished and not damage:
                yield f"{artefact.path} is missing or not finished, though the run was; go on with it: {part.command}"
        yield from _own_files(part.folder)


def _finished(folder: Path) -> bool:
    """Whether a run had come to its end, as far as can be read: that its summary is damaged is told on its own."""
    from experiments.study.finished import was_finished

    try:
        return was_finished(folder)
    except UserError:
        return False


def _differing(pairs: Iterable[tuple[Path, Path]]) -> Iterator[str]:
    """Files under names for people that are not those of their artefact."""
    from worldaction.io.files import sha256_of

    for source, target in pairs:
        if not target.is_file():
            yield f"{target} is missing"
        elif source.is_file() and not target.samefile(source) and sha256_of(target) != sha256_of(source):
            yield f"{target} is not what {source} is"


def _own_files(folder: Path) -> Iterator[str]:
    """Every JSON file of the run itself."""
    from worldaction.io.sealed_json import read_json

    for path in sorted(folder.glob("*.json")):
        try:
            # what a jury said is a list
            read_json(path, list[Any] if path.name == JURY else dict[str, Any])
        except UserError as error:
            yield str(error)
