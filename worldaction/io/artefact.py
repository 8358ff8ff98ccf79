"""Files that are either whole or absent: JSON, tensors, checkpoints, and the folder of a stage with its manifest.

Everything is written beside its destination, flushed to disk and renamed, so that a process killed at any moment leaves
the old file or the new one. Nothing that is read here can run code: JSON and safetensors only.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from worldaction.config import digest
from worldaction.errors import Unfinished, UserError
from worldaction.io.disk import cannot_write, number_in
from worldaction.io.files import check_regular, sha256_of
from worldaction.io.lock import LOCK, Lock
from worldaction.io.sealed_json import SEAL, read_json, seal_of

CHECKPOINT_FORMAT = "worldaction checkpoint 1"
SESSIONS = "sessions.json"
"""In the folder of a stage that is not finished: seconds of work before the current session, which began when this was
written."""
CHECKPOINT = "checkpoint.safetensors"
"""In the folder of a stage that is at work and can be taken up; deleted when it is finished."""
_NOT_SUMMED = {CHECKPOINT, SESSIONS, LOCK, "manifest.json", "made_by.json"}
WEIGHTS = "weights"
"""In a config.json: the hash of the tensors in the file beside it."""
SUM = "sha256"
"""In the strings of a safetensors file of ours: a hash of its tensors."""
PACKAGES = ("worldaction", "torch", "torchrl", "tensordict", "numpy", "mujoco", "gymnasium", "safetensors")


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a rename is safe only once its folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Make a closed file's content durable."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path, *, needs: int | None = None) -> Iterator[Path]:
    """A temporary name to write to, which takes the place of `path` when the block ends without an error.

    Args:
        path: the file to replace; its folder is created.
        needs: bytes of the file, where they are known, for what is said of a full disk.

    Raises:
        Unfinished: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    # in a folder of its own, because some libraries write to a temporary name beside the one that they are given
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary = folder / "new.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        folder.mkdir(exist_ok=True)
        yield temporary
        _open_to_others(temporary)
        fsync_file(temporary)
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error, needs=needs) from error
    except SafetensorError as error:
        # it puts the system's errors into words
        if number_in(error) is None:
            raise
        raise cannot_write(path, error, needs=needs) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _open_to_others(path: Path) -> None:
    """Give a file the rights that any new one has: some libraries make files that nobody else may read."""
    usual = path.with_name("usual")
    usual.touch()
    path.chmod(path.stat().st_mode | usual.stat().st_mode)
    # so that a process killed between the rename and the clean-up leaves no file
    usual.unlink()


def _remove_leftovers(path: Path) -> None:
    """Delete what killed writers left behind: a checkpoint's can be large."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        try:
            os.kill(int(leftover.suffixes[-2][1:]), 0)
        except ProcessLookupError:
            shutil.rmtree(leftover, ignore_errors=True)
        except (PermissionError, ValueError):
            continue  # another user's process, or a file that is not ours


# --- JSON and tensors -------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """`value` in JSON's own types; NaN and infinities, which JSON lacks, become null.

    Args:
        value: nested dicts, lists, tuples and dataclasses of numbers, strings, paths and one-element arrays.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Tensor | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def write_json(path: Path | str, value: Any, *, sealed: bool = True) -> None:
    """Write `value` as readable JSON, atomically; see `plain` for what may be in it.

    Args:
        path: the file.
        value: what to write.
        sealed: whether an object gets a `SEAL`, which `read_json` compares; formats of others have none.
    """
    content = plain(value)
    if sealed and isinstance(content, dict):
        content.pop(SEAL, None)
        content[SEAL] = seal_of(content)
    text = json.dumps(content, indent=2, allow_nan=False)
    with replacing(Path(path)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write named tensors as safetensors, atomically, with a hash of them, which reading compares.

    Args:
        path: the file.
        tensors: name to tensor of any shape and device.
        metadata: strings to keep beside them.

    Returns:
        the hash.
    """
    # copies, because safetensors refuses tensors that share memory, such as tied weights
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    found = _sum_of(copies, metadata or {})
    with replacing(Path(path), needs=sum(copy.nbytes for copy in copies.values())) as temporary:
        save_file(copies, temporary, metadata={**(metadata or {}), SUM: found})
    return found


def load_tensors(path: Path | str, *, expected: str | None = None) -> dict[str, Tensor]:
    """The named tensors of a safetensors file, on the CPU.

    Args:
        path: the file.
        expected: what `save_tensors` returned; None if nobody noted it.

    Raises:
        UserError: the file is missing, truncated, of another format, not as it was written, or not the expected one.
    """
    tensors, metadata = _read_safetensors(Path(path))
    if expected is not None and metadata.get(SUM) != expected:
        raise UserError(f"{path} holds other numbers than its config.json was written for; get both files anew")
    return tensors


def load_metadata(path: Path | str) -> dict[str, str]:
    """The strings kept in a safetensors file; raises as `load_tensors`."""
    return {name: text for name, text in _read_safetensors(Path(path), tensors=False)[1].items() if name != SUM}


def _read_safetensors(path: Path, *, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(check_regular(path), framework="pt", device="cpu") as file:
            names = file.keys() if tensors else []
            # cloned, so that the file may be replaced while its tensors live
            values = {name: file.get_tensor(name).clone() for name in names}
            metadata = dict(file.metadata() or {})
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path, or run what writes it") from None
    # a damaged header can name more bytes than there are, and a name that is no text
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is truncated or no safetensors file ({error}); write it again") from error
    if tensors and SUM in metadata and metadata[SUM] != _sum_of(values, metadata):
        raise UserError(f"{path} has changed since it was written; get it anew, or write it again")
    return values, metadata


def _sum_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """A hash of tensors with their names, types and shapes, and of the strings beside them."""
    found = hashlib.sha256(json.dumps({k: v for k, v in metadata.items() if k != SUM}, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


# --- checkpoints ------------------------------------------------------------------------------------------------------


class Checkpoint(NamedTuple):
    """What `save_checkpoint` was given."""

    state: Any
    """Nested dicts, lists and tuples of CPU tensors and plain values."""
    extra: dict[str, Any]
    """The plain JSON part."""


def save_checkpoint(path: Path | str, state: Any, *, extra: Mapping[str, Any] | None = None) -> None:
    """Write the state of models, optimisers and generators as one safetensors file, atomically.

    Args:
        path: the file.
        state: nested dicts (keys: strings or integers), lists and tuples of tensors, numbers, strings, booleans, None;
            for instance `{"model": model.state_dict(), "optimiser": optimiser.state_dict(), "rng": rng.get_state()}`.
        extra: plain JSON values, such as the step and the digest of the settings.

    Raises:
        TypeError: a leaf of `state` is of another type.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _strip(state, "", tensors)
    metadata = {"format": CHECKPOINT_FORMAT, "state": json.dumps(skeleton), "extra": json.dumps(plain(extra or {}))}
    save_tensors(path, tensors, metadata)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read what `save_checkpoint` wrote, bit for bit.

    Raises:
        UserError: the file is missing, truncated, or not a checkpoint of this library.
    """
    tensors, metadata = _read_safetensors(Path(path))
    if metadata.get("format") != CHECKPOINT_FORMAT:
        raise UserError(f"{path} is no checkpoint of this version ({metadata.get('format')!r}); train again")
    try:
        return Checkpoint(_fill(json.loads(metadata["state"]), tensors), json.loads(metadata["extra"]))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is a damaged checkpoint ({error!r}); delete it and train again") from error


def _strip(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The structure of `value` for JSON, its tensors moved to `tensors`. Containers become one-key tagged dicts."""
    if isinstance(value, Tensor):
        name = f"{len(tensors):05d}{path}"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        if bad := [key for key in value if type(key) not in (str, int)]:
            raise TypeError(f"key {bad[0]!r} under {path or '/'} of a checkpoint is neither a string nor an integer")
        return {"dict": [[key, _strip(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        tag = "list" if isinstance(value, list) else "tuple"
        return {tag: [_strip(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} at {path or '/'} cannot be kept in a checkpoint")


def _fill(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_strip`."""
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag == "tensor":
        return tensors[content]
    if tag == "dict":
        return {key: _fill(item, tensors) for key, item in content}
    items = [_fill(item, tensors) for item in content]
    return {"list": list, "tuple": tuple}[tag](items)


# --- the folder of a stage --------------------------------------------------------------------------------------------


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
