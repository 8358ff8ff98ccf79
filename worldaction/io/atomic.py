"""Files that are either whole or absent: JSON, tensors and checkpoints.

Everything is written beside its destination, flushed to disk and renamed, so that a process killed at any moment leaves
the old file or the new one. Nothing that is read here can run code: JSON and safetensors only.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from worldaction.errors import UserError
from worldaction.io.disk import cannot_write, number_in
from worldaction.io.files import check_regular
from worldaction.io.sealed_json import SEAL, seal_of

CHECKPOINT_FORMAT = "worldaction checkpoint 1"
WEIGHTS = "weights"
"""In a config.json: the hash of the tensors in the file beside it."""
SUM = "sha256"
"""In the strings of a safetensors file of ours: a hash of its tensors."""


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
    found = sum_of(copies, metadata)
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
    if tensors and SUM in metadata and metadata[SUM] != sum_of(values, metadata):
        raise UserError(f"{path} has changed since it was written; get it anew, or write it again")
    return values, metadata


def sum_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """A hash of tensors on the CPU with their names, types and shapes, and of the strings beside them."""
    strings = {name: text for name, text in (metadata or {}).items() if name != SUM}
    found = hashlib.sha256(json.dumps(strings, sort_keys=True).encode())
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
