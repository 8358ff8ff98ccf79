"""Artefacts of other runs: what the same settings have made there is read where it lies, and not made again.

An artefact is the same if everything that determines it is the same, which `made_by.json` beside it says. What a stage
leaves elsewhere in its run's folder (outcomes, metrics, films, policies to load) is small, or shared by hard links, and
is brought along by `adopt`, so that a run's page and tables are whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from worldaction.errors import UserError
from worldaction.io.artefact import Artefact, decisive, flatten, plain, read_json, replacing
from worldaction.io.recorder import read_metrics

ARMS: Final = "arms"
"""The folder in a run in which its arms are runs of their own, which read each other's artefacts."""
ADOPTED: Final = "metrics/adopted.jsonl"


def is_run(folder: Path) -> bool:
    """Whether a folder is one of a run."""
    return (folder / "config.json").exists()


def named(reuse: Iterable[str]) -> tuple[str, ...]:
    """The folders that a user has named, as absolute paths.

    Raises:
        UserError: one of them is no run.
    """
    for name in reuse:
        if not is_run(Path(name)):
            raise UserError(f"--reuse {name}: there is no run in it (no config.json); give the folder of a run")
    return tuple(str(Path(name).resolve()) for name in reuse)


def lenders(folder: Path, reuse: Iterable[str]) -> list[Path]:
    """Runs whose artefacts a run may read, in the order in which they are asked.

    Those beside it, if it is an arm; those that were named, with their arms; and those that these read from in turn.

    Args:
        folder: of the run, which is not among them.
        reuse: what it names, as absolute paths.
    """
    own = folder.resolve()
    found: dict[Path, None] = {own: None}
    waiting = [*_beside(own), *(Path(name) for name in reuse)]
    while waiting:
        lender = waiting.pop(0)
        # what a lender once borrowed from may be gone, and its own artefacts are as good as before
        if lender not in found and is_run(lender):
            found[lender] = None
            waiting += [*_beside(lender), *_runs_in(lender / ARMS)]
            waiting += [Path(name) for name in read_json(lender / "config.json").get("reuse") or ()]
    return [lender for lender in found if lender != own]


def _beside(folder: Path) -> list[Path]:
    study = folder.parent.parent
    return _runs_in(folder.parent) if folder.parent.name == ARMS and is_run(study) else []


def _runs_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_run(path)) if folder.is_dir() else []


def made_there(path: Path, made_by: Mapping[str, Any], aside: Collection[str] = ()) -> bool:
    """Whether a folder holds the complete artefact of these settings; `aside` as `Artefact` has it."""
    if not ((path / "manifest.json").exists() and (path / "made_by.json").exists()):
        return False
    return decisive(read_json(path / "made_by.json"), aside) == decisive(plain(made_by), aside)


def unlike(folder: Path, artefacts: Mapping[str, Artefact]) -> str:
    """Why nothing of a run can be read: the first setting that differs, in words.

    Args:
        folder: of the run.
        artefacts: those that are wanted, by their place, inputs before what is made of them.
    """
    for place, artefact in artefacts.items():
        path = folder / "artefacts" / place / "made_by.json"
        had = flatten(read_json(path)) if path.exists() else {}
        wanted = decisive(artefact.made_by, artefact.aside)
        for name in (name for name in wanted if had and had.get(name) != wanted[name]):
            return (
                f"nothing is reused, its {place} was made with {name} = {had.get(name, 'not set')}, not {wanted[name]}"
            )
    return "nothing is reused, it holds nothing complete that was made with these settings"


# What lies beside artefacts -------------------------------------------------------------------------------------------


def borrowed(folder: Path, artefacts: Mapping[str, Artefact]) -> dict[str, Path]:
    """Which artefacts are read from another run, and the folder of that run.

    Args:
        folder: of the run that reads.
        artefacts: its artefacts by their place, such as seed0/open_drawer/ppo.
    """
    origins = {place: artefact.path.parents[place.count("/") + 1] for place, artefact in artefacts.items()}
    return {place: origin for place, origin in origins.items() if origin.resolve() != folder.resolve()}


def told(folder: Path, origins: Mapping[str, Path]) -> dict[str, str]:
    """The same in words for a summary: relative paths between arms of a study, so that it can be moved as a whole."""
    own = folder.resolve()
    beside = {origin: origin.parent == own.parent and own.parent.name == ARMS for origin in origins.values()}
    return {place: os.path.relpath(o, own) if beside[o] else str(o) for place, o in origins.items()}


def adopt(folder: Path, origins: Mapping[str, Path]) -> None:
    """Bring along what reused stages have left in the folders of their runs.

    Args:
        folder: of the run that reuses.
        origins: what `borrowed` found.
    """
    for place, origin in origins.items():
        for path in _files_beside(origin, place):
            _link(path, folder / path.relative_to(origin))
    _adopt_metrics(folder, origins)


def _files_beside(origin: Path, place: str) -> Iterator[Path]:
    """Outcomes, films and policies of a stage."""
    patterns: list[str] = []
    if match := re.fullmatch(r"seed(\d+)/fidelity", place):
        patterns = [f"videos/open_loop-seed{match[1]}-*"]
    elif match := re.fullmatch(r"seed(\d+)/([^/]+)/evaluation", place):
        seed, task = match.groups()
        patterns = [f"{kind}/{task}-seed{seed}{rest}" for kind, rest in
                    (("evaluation", ".json"), ("videos", ".*"), ("policies", "-*/*"))]  # fmt: skip
    for pattern in patterns:
        yield from (path for path in sorted(origin.glob(pattern)) if path.is_file())


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links. Neither is ever changed in place."""
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def _prefixes(place: str) -> list[str]:
    """What a stage's metrics are recorded under."""
    parent, _, stage = place.rpartition("/")
    return {"world_model": [place], "success": [place], "clone": [place], "ppo": [parent, f"{parent}/real"]}.get(
        stage, []
    )


def _adopt_metrics(folder: Path, borrowed: Mapping[str, Path]) -> None:
    """Recorded lines of the reused stages, in a file of their own."""
    wanted: dict[Path, set[str]] = {}
    for place, origin in borrowed.items():
        wanted.setdefault(origin, set()).update(_prefixes(place))
    lines = [
        json.dumps(line) + "\n"
        for origin, prefixes in wanted.items()
        for line in read_metrics(origin)
        if line["prefix"] in prefixes
    ]
    if lines:
        with replacing(folder / ADOPTED) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
