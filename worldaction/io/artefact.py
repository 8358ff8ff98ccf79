"""Files that are either whole or absent: JSON, tensors, checkpoints, and the folder of a stage with its manifest.

Everything is written beside its destination, flushed to disk and renamed, so that a process killed at any moment leaves
the old file or the new one. Nothing that is read here can run code: JSON and safetensors only.
"""

from __future__ import annotations

import dataclasses
import glob
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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from worldaction.config import digest
from worldaction.errors import Unfinished, UserError
from worldaction.io.disk import cannot_write, number_in
from worldaction.io.lock import LOCK, Lock

CHECKPOINT_FORMAT = "worldaction checkpoint 1"
SESSIONS = "sessions.json"
"""In the folder of a stage that is not finished: seconds of work before the current session, which began when this was
written."""
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


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as readable JSON, atomically; see `plain` for what may be in it."""
    text = json.dumps(plain(value), indent=2, allow_nan=False)
    with replacing(Path(path)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """What `write_json` wrote.

    Raises:
        UserError: the file is missing or is no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path, or run what writes it") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it and write it again") from error


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors as safetensors, atomically.

    Args:
        path: the file.
        tensors: name to tensor of any shape and device.
        metadata: strings to keep beside them.
    """
    # copies, because safetensors refuses tensors that share memory, such as tied weights
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    with replacing(Path(path), needs=sum(copy.nbytes for copy in copies.values())) as temporary:
        save_file(copies, temporary, metadata=dict(metadata or {}))


def load_tensors(path: Path | str) -> dict[str, Tensor]:
    """The named tensors of a safetensors file, on the CPU.

    Raises:
        UserError: the file is missing, truncated or of another format.
    """
    return _read_safetensors(Path(path))[0]


def load_metadata(path: Path | str) -> dict[str, str]:
    """The strings kept in a safetensors file; raises as `load_tensors`."""
    return _read_safetensors(Path(path), tensors=False)[1]


def _read_safetensors(path: Path, *, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys() if tensors else []
            # cloned, so that the file may be replaced while its tensors live
            values = {name: file.get_tensor(name).clone() for name in names}
            return values, dict(file.metadata() or {})
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path, or run what writes it") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is truncated or no safetensors file ({error}); write it again") from error


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
    except (KeyError, TypeError, ValueError) as error:
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
        """Whether the stage has finished with these settings."""
        return (self.path / "manifest.json").exists() and (self.path / "made_by.json").exists()

    @property
    def folder(self) -> Path:
        """The folder to write into.

        Raises:
            UserError: another process is at work on it.
        """
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
        results: dict[str, Any] = read_json(self.path / "manifest.json")["results"]
        return results

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
        manifest = {"made_by": self.made_by, "results": results, "versions": versions(), "seconds": seconds}
        write_json(folder / "manifest.json", manifest)
        held.lock.release()

    def _sessions(self) -> float:
        """Wall time of the sessions before this one: of each, from its first file to its last."""
        mark = self.path / SESSIONS
        if not mark.exists():
            return 0.0
        # what a killed session did after its last file is done again, and that is counted
        files = (path for path in self.path.rglob("*") if path.is_file() and path.name != LOCK)
        last = max(path.stat().st_mtime for path in files)
        # never less than nothing, though the wall's clock may have been set back meanwhile
        return float(read_json(mark)["seconds"]) + max(0.0, last - mark.stat().st_mtime)

    def _check(self, folder: Path) -> None:
        wanted, there = flatten(self.made_by), flatten(read_json(folder / "made_by.json"))
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
            had = flatten(read_json(path)["made_by"])
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
