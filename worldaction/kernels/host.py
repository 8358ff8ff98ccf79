"""C++ for the processor in hand: compiled by g++ on first use, kept, and called through ctypes.

The code is kept where the GPU's is (`worldaction.kernels.cuda.compile.cache_folder`), under the digest of all that made
it: its text, the compiler, and what ``-march=native`` means here. Machines that share a home do not share code.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from worldaction.errors import UserError
from worldaction.io.atomic import replacing
from worldaction.kernels.cuda.compile import is_ours, own_cache

COMPILER = "g++"
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC")
SUM_BYTES = 32
X86 = ("-mprefer-vector-width=512",)

logger = logging.getLogger(__name__)


@cache
def problem(source: Path) -> str | None:
    """Why a file cannot be compiled or loaded here, and what to do about it, in one line; None if it can.

    Args:
        source: a C++ file that includes nothing but the standard library's headers.
    """
    try:
        library(source)
    except UserError as error:
        return str(error)
    return None


@cache
def library(source: Path) -> ctypes.CDLL:
    """A file's functions, compiled unless that was done before.

    Args:
        source: as in `problem`.

    Raises:
        UserError: there is no compiler, it refuses the file, or the result cannot be kept or loaded.
    """
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise UserError(f"there is no {COMPILER} on PATH, which compiles {source.name} on first use; install it")
    try:
        path = _kept(compiler, source)
        try:
            return ctypes.CDLL(str(path))
        except OSError as error:
            # whole, and not for this machine's libraries
            logger.warning("%s cannot be loaded (%s): compiling it again", path, error)
            path.unlink()
            return ctypes.CDLL(str(_kept(compiler, source)))
    except OSError as error:
        raise UserError(f"{source.name} cannot be kept or loaded: {' '.join(str(error).split())}") from error


def _kept(compiler: str, source: Path) -> Path:
    """Where the compiled file is."""
    options = (*OPTIONS, *(X86 if platform.machine() == "x86_64" else ()))
    # what the compiler would do: its version, and every option that -march=native stands for
    asked = [compiler, *options, "-E", "-v", "-x", "c++", "/dev/null"]
    target = subprocess.run(asked, capture_output=True, text=True, check=False).stderr
    digest = hashlib.sha256("\0".join([source.read_text(encoding="utf-8"), *options, target]).encode()).hexdigest()
    path = own_cache() / f"{source.stem}-{digest[:24]}.so"
    if not _is_whole(path):
        with replacing(path) as temporary, tempfile.TemporaryDirectory() as folder:
            unlinked = str(Path(folder) / "unlinked.o")
            _run(source, [compiler, *options, "-c", str(source), "-o", unlinked])
            # without OpenMP's library: PyTorch has brought one, and a second one would start threads of its own
            _run(source, [compiler, "-shared", "-nostdlib", unlinked, "-o", str(temporary)])
            # behind the code, where no loader looks
            code = temporary.read_bytes()
            temporary.write_bytes(code + _sum_of(code))
            temporary.chmod(0o700)
        logger.info("compiled %s", source.name)
    return path


def _is_whole(path: Path) -> bool:
    """Whether a file is ours and as it was compiled: loading half of one can end the process."""
    if not is_ours(path):
        return False
    content = path.read_bytes()
    return content[-SUM_BYTES:] == _sum_of(content[:-SUM_BYTES])


def _sum_of(code: bytes) -> bytes:
    return hashlib.sha256(code).digest()


def _run(source: Path, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        line = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        raise UserError(f"{COMPILER} refuses {source.name}: {line.strip()}; report it")
