"""The folder of a stage, with the manifest that says it is finished, and a cache of such folders by what made them."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from worldaction.config import digest
from worldaction.errors import Unfinished, UserError
from worldaction.io.atomic import load_checkpoint, plain, write_json
from worldaction.io.files import sha256_of
from worldaction.io.lock import LOCK, Lock
from worldaction.io.sealed_json import read_json

SESSIONS = "sessions.json"
"""In the folder of a stage that is not finished: seconds of work before the current session, which began when this was
written."""
CHECKPOINT = "checkpoint.safetensors"
"""In the folder of a stage that is at work and can be taken up; deleted when it is finished."""
_NOT_SUMMED = {CHECKPOINT, SESSIONS, LOCK, "manifest.json", "made_by.json"}
PACKAGES = ("worldaction", "torch", "torchrl", "tensordict", "numpy", "mujoco", "gymnasium", "safetensors")


@dataclasses.dataclass(frozen=True)
class FileSum:
    """What a file was when its stage was finished."""

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What is kept of a stage that is complete."""

    made_by: dict[str, Any]
    results: dict[str, Any]
    versions: dict[str, str]
    seconds: float
    files: dict[str, FileSum] = dataclasses.field(default_factory=dict)
    """By the path in the folder; none in stages that older versions made."""


def read_manifest(folder: Path) -> Manifest:
    """What `Artefact.finish` left in a folder.

    Raises:
        UserError: the stage is not complete, or the file is damaged.
    """
    found: Manifest = read_json(folder / "manifest.json", Manifest, remedy="go on with its run by --resume")
    return found


def sums(folder: Path) -> dict[str, FileSum]:
    """Sizes and hashes of what a stage made: all files but those that its making needed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in _NOT_SUMMED and not path.name.startswith("."):
            found[path.relative_to(folder).as_posix()] = FileSum(path.stat().st_size, sha256_of(path))
    return found


def _changes(folder: Path, files: Mapping[str, FileSum]) -> list[str]:
    wrong = []
    for name, known in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts or not path.is_file():
            wrong.append(f"{path} is missing")
        elif (size := path.stat().st_size) != known.bytes:
            wrong.append(f"{path} has {size} bytes, not {known.bytes}")
        elif sha256_of(path) != known.sha256:
            wrong.append(f"{path} has changed since it was written")
    return wrong


class Artefact:
    """The folder of one stage's results: which settings made it, whether it is complete, what came out.

    `made_by.json` is written when work begins and `manifest.json` when it ends, so a folder left by an interrupted
    process is told apart from a complete one, and can be resumed. One process at a time writes into it.

    Args:
        path: the stage's folder; created by the first use of `folder`.
        made_by: everything that determines the result: settings, seed, and the `digest` of each input.
        link: a name under which the folder is to be found as well, such as that of a run; made when it is first used.
        shared: whether the folder stays where it is when the link is moved; else the link is a relative one.

    Raises:
        UserError: the folder was made by other settings.
    """

    def __init__(
        self, path: Path | str, *, made_by: Mapping[str, Any], link: Path | None = None, shared: bool = False
    ) -> None:
        self.path, self.link, self.shared = Path(path), link, shared
        self.made_by: dict[str, Any] = plain(made_by)
        self._since = time.monotonic()
        self._unreadable = ""
        # a link may lead to what was made by the settings of before
        for found in (self.path, self.link):
            if found is not None and (found / "made_by.json").exists():
                self._check(found)

    @property
    def digest(self) -> str:
        """A short hash of `made_by`, for the stages that build on this one."""
        return digest(self.made_by)

    @property
    def complete(self) -> bool:
        """Whether the stage has finished with these settings; `damage` looks whether all of it is still there."""
        return not self._unreadable and all((self.path / name).exists() for name in ("manifest.json", "made_by.json"))

    @property
    def folder(self) -> Path:
        """The folder to write into.

        Raises:
            UserError: another process is at work on it.
        """
        if self._unreadable:
            raise UserError(f"{self._unreadable}; or go on with its run by --resume, which makes it again")
        if not self.complete and self.path.resolve() not in _held:
            lock = Lock(self.path, remedy="wait for it, or give another --cache")
            if self.complete:
                # by the one for whom this one has waited; others read it already
                lock.release()
                raise Unfinished(f"{self.path} has just been made by another process, and is there now")
            _held[self.path.resolve()] = _Held(lock, self._since, self._sessions())
            write_json(self.path / SESSIONS, {"seconds": _held[self.path.resolve()].before})
        if not (self.path / "made_by.json").exists():
            write_json(self.path / "made_by.json", self.made_by)
        self.show()
        return self.path

    def show(self) -> None:
        """Make the link to the folder, if there is to be one and there is none."""
        if self.link is None or self.link.exists():
            return
        target, folder = self.path.resolve(), self.link.parent
        folder.mkdir(parents=True, exist_ok=True)
        # a link that leads nowhere is what is left of a cache that was moved or deleted
        self.link.unlink(missing_ok=True)
        where = target if self.shared else os.path.relpath(target, folder.resolve())
        self.link.symlink_to(where, target_is_directory=True)

    @property
    def results(self) -> dict[str, Any]:
        """What `finish` was given."""
        return read_manifest(self.path).results

    def finish(self, results: Mapping[str, Any]) -> None:
        """Declare the stage complete.

        Args:
            results: numbers and names worth keeping, as plain values.
        """
        if self.complete:
            # another process has made the same in the meantime
            return
        folder = self.folder
        held = _held.pop(self.path.resolve())
        seconds = round(held.before + time.monotonic() - held.since, 3)
        (folder / SESSIONS).unlink(missing_ok=True)
        write_json(folder / "manifest.json", Manifest(self.made_by, dict(results), versions(), seconds, sums(folder)))
        held.lock.release()

    def damage(self) -> list[str]:
        """What is not as it was when the stage was finished, a line each; of a stage that is not, whether its
        checkpoint can be read.
        """
        try:
            if self._unreadable:
                return [self._unreadable]
            if self.complete:
                return _changes(self.path, read_manifest(self.path).files)
            if (self.path / CHECKPOINT).exists():
                load_checkpoint(self.path / CHECKPOINT)
        except UserError as error:
            return [str(error)]
        return []

    def set_aside(self) -> Path:
        """Give the folder another name, so that the stage is made again; what was set aside before is deleted.

        Raises:
            UserError: the folder cannot be renamed.
        """
        aside = self.path.with_name(f"{self.path.name}.damaged")
        try:
            shutil.rmtree(aside, ignore_errors=True)
            self.path.rename(aside)
        except OSError as error:
            raise UserError(f"cannot rename {self.path}: {error.strerror}; delete it") from error
        self._unreadable = ""
        return aside

    def _sessions(self) -> float:
        """Wall time of the sessions before this one: of each, from its first file to its last."""
        mark = self.path / SESSIONS
        if not mark.exists():
            return 0.0
        # what a killed session did after its last file is done again, and that is counted
        files = (path for path in self.path.rglob("*") if path.is_file() and path.name != LOCK)
        last = max(path.stat().st_mtime for path in files)
        # never less than nothing, though the wall's clock may have been set back meanwhile
        before = read_json(mark, dict[str, float]).get("seconds", 0.0)
        return before + max(0.0, last - mark.stat().st_mtime)

    def _check(self, folder: Path) -> None:
        try:
            made_by = read_json(folder / "made_by.json", dict[str, Any])
        except UserError as error:
            if folder == self.path:
                self._unreadable = str(error)
            return
        wanted, there = flatten(self.made_by), flatten(made_by)
        for name in sorted(wanted.keys() | there.keys()):
            if wanted.get(name) != there.get(name):
                had, has = there.get(name, "not set"), wanted.get(name, "not set")
                raise UserError(f"{folder} was made with {name} = {had}, not {has}; delete it or use another run")


class Cache:
    """Artefacts by what made them: ``<folder>/<stage>/<digest>``, so equal settings find each other's results.

    Args:
        folder: created when the first artefact is.
        shared: whether it belongs to no run, and stays where it is when one is moved.
    """

    def __init__(self, folder: Path | str, *, shared: bool = False) -> None:
        self.folder, self.shared = Path(folder), shared

    def artefact(self, stage: str, made_by: Mapping[str, Any], *, link: Path | None = None) -> Artefact:
        """The artefact of a stage; see `Artefact` for the arguments."""
        path = self.folder / stage / digest(plain(made_by))
        return Artefact(path, made_by=made_by, link=link, shared=self.shared)

    def why_not(self, stage: str, artefact: Artefact) -> str:
        """Why none of a stage's complete artefacts is the wanted one: the first setting in which the nearest differs.

        Returns:
            a sentence, empty if there is none to compare.
        """
        wanted = flatten(artefact.made_by)
        differences = []
        for path in sorted((self.folder / stage).glob("*/manifest.json")):
            had = flatten(read_manifest(path.parent).made_by)
            names = sorted(wanted.keys() | had.keys())
            differences.append([(name, had.get(name)) for name in names if had.get(name) != wanted.get(name)])
        differences = [found for found in differences if found]
        if not differences:
            return ""
        name, value = min(differences, key=len)[0]
        values = ["not set" if shown is None else shown for shown in (value, wanted.get(name))]
        return f"its {stage} was made with {name} = {values[0]}, not {values[1]}"


class _Held(NamedTuple):
    """A folder that this process writes into, until it is complete or the process ends."""

    lock: Lock
    since: float
    """When this session began, by the monotonic clock."""
    before: float
    """Seconds of the sessions before it."""


_held: dict[Path, _Held] = {}


def versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted names."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
