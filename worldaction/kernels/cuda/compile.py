"""From the text of a kernel to machine code, with NVRTC or nvcc, once for each size and kind of GPU.

NVRTC comes with every CUDA build of torch, so a user needs no toolkit; nvcc serves where there is no NVRTC. Both work
on a machine without a GPU (`worldaction build-kernels`). The code is kept in a folder under the digest of all
that made it: WORLDACTION_KERNEL_CACHE, else one in the user's cache.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from worldaction.errors import UserError
from worldaction.io.atomic import replacing
from worldaction.kernels.cuda.source import FOLDER, Source, files

CACHE = "WORLDACTION_KERNEL_CACHE"
OTHERS = stat.S_IWGRP | stat.S_IWOTH
"""Permissions by which somebody else may write."""
OPTIONS = ("-std=c++17",)

logger = logging.getLogger(__name__)


class Compiler(Protocol):
    """What makes machine code."""

    @property
    def version(self) -> str:
        """Name and version: part of what its results are kept under."""
        ...

    def compile(self, source: Source, arch: str) -> bytes:
        """The code (cubin) of a source for an architecture such as sm_90."""
        ...


def cubin(source: Source, arch: str) -> bytes:
    """Machine code of a source, compiled unless it is in the cache.

    Args:
        source: what.
        arch: for which GPUs, such as "sm_90".

    Raises:
        UserError: there is no compiler, or it refuses the source.
    """
    pattern = f"{source.name}-{source.key}-{arch}-*.cubin"
    kept = [path for path in sorted(own_cache().glob(pattern)) if is_ours(path)]
    for path in [*sorted(shipped().glob(pattern)), *kept]:
        return path.read_bytes()
    made = compiler()
    code = made.compile(source, arch)
    path = own_cache() / f"{source.name}-{source.key}-{arch}-{made.version}.cubin"
    with replacing(path) as temporary:
        temporary.write_bytes(code)
        temporary.chmod(0o600)
    logger.info("compiled %s for %s with %s", source.name, arch, made.version)
    return code


def shipped() -> Path:
    """Where a release keeps what was compiled ahead of time."""
    return FOLDER / "cubins"


def cache_folder() -> Path:
    """Where compiled code is kept; made on first use."""
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "worldaction" / "kernels"


def own_cache() -> Path:
    """The folder of `cache_folder`, made if need be, in which nobody else can put code.

    Raises:
        UserError: it belongs to another user, who could, or cannot be made.
    """
    folder = cache_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid not in (os.getuid(), 0) or (status.st_uid != os.getuid() and status.st_mode & OTHERS):
            raise UserError(
                f"{folder} is another user's, who could put code there; set {CACHE} to a folder of your own"
            )
        if status.st_mode & OTHERS:
            folder.chmod(status.st_mode & ~OTHERS)
            logger.warning("%s could be written by others, who could put code there: it no longer can", folder)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}; set {CACHE} to a folder of your own") from error
    return folder


def is_ours(path: Path) -> bool:
    """Whether a file of compiled code is one that nobody else can have written."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid in (os.getuid(), 0) and not status.st_mode & OTHERS


def compiler() -> Compiler:
    """The compiler of this machine.

    Raises:
        UserError: there is none.
    """
    found = _nvrtc() or _nvcc()
    if found is None:
        raise UserError(
            "no CUDA compiler; install a CUDA build of torch, which has NVRTC, with cuda-bindings, or put nvcc on PATH"
        )
    return found


def has_compiler() -> bool:
    """Whether `compiler` would find one."""
    return _nvrtc() is not None or _nvcc() is not None


@dataclass(frozen=True)
class Nvrtc:
    """The compiler that is a library."""

    module: Any
    version: str

    def compile(self, source: Source, arch: str) -> bytes:
        """See `Compiler.compile`."""
        texts = files(source.name)
        names = [name for name in texts if name != f"{source.name}.cuh"]
        main, headers = texts[f"{source.name}.cuh"].encode(), [texts[name].encode() for name in names]
        program = self._call(
            "nvrtcCreateProgram", main, f"{source.name}.cuh".encode(), len(names), headers, [n.encode() for n in names]
        )
        try:
            return self._build(program, source, arch)
        finally:
            self._call("nvrtcDestroyProgram", program)

    def _build(self, program: Any, source: Source, arch: str) -> bytes:
        options = [f"--gpu-architecture={arch}", *OPTIONS, *(f"-D{macro}" for macro in source.macros)]
        status = self.module.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])[0]
        if int(status):
            log = bytearray(self._call("nvrtcGetProgramLogSize", program))
            self._call("nvrtcGetProgramLog", program, log)
            raise _refused(source, arch, self.version, log.decode(errors="replace"))
        code = bytearray(self._call("nvrtcGetCUBINSize", program))
        self._call("nvrtcGetCUBIN", program, code)
        return bytes(code)

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *rest = getattr(self.module, name)(*arguments)
        if int(status):
            raise UserError(f"{name} of {self.version} failed with {status!r}; reinstall the CUDA build of torch")
        return rest[0] if rest else None


@dataclass(frozen=True)
class Nvcc:
    """The compiler that is a program."""

    path: str
    version: str

    def compile(self, source: Source, arch: str) -> bytes:
        """See `Compiler.compile`."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files(source.name).items():
                (Path(folder) / name).write_text(text, encoding="utf-8")
            main, out = Path(folder) / "main.cu", Path(folder) / "out.cubin"
            main.write_text(f'#include "{source.name}.cuh"\n', encoding="utf-8")
            macros = [f"-D{macro}" for macro in source.macros]
            command = [self.path, "-cubin", f"-arch={arch}", *OPTIONS, *macros, "-o", str(out), str(main)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise _refused(source, arch, self.version, done.stderr)
            return out.read_bytes()


def nvcc_path() -> str | None:
    """Where nvcc is: below CUDA_HOME, on PATH, or where toolkits are installed."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    places = (f"{home}/bin/nvcc" if home else None, shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc")
    return next((place for place in places if place and os.access(place, os.X_OK)), None)


@cache
def _nvrtc() -> Nvrtc | None:
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return None
    module = importlib.import_module("cuda.bindings.nvrtc")
    try:
        status, major, minor = module.nvrtcVersion()
    except RuntimeError as error:  # the bindings are there, the library is not
        logger.info("NVRTC cannot be used: %s", error)
        return None
    return None if int(status) else Nvrtc(module, f"nvrtc-{major}.{minor}")


@cache
def _nvcc() -> Nvcc | None:
    path = nvcc_path()
    if path is None:
        return None
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    return Nvcc(path, "nvcc-" + said.partition("release ")[2].partition(",")[0])


def _refused(source: Source, arch: str, version: str, log: str) -> UserError:
    line = next((line for line in log.splitlines() if "error" in line), log.strip()[:200])
    return UserError(f"{version} refuses {source.name} {dict(source.sizes)} for {arch}: {line.strip()}; report it")
