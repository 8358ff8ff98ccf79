"""C++ is compiled once, kept under all that made it, and its absence is one clear line."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from worldaction.errors import UserError
from worldaction.kernels import host
from worldaction.kernels.cuda import compile as compiling
from worldaction.kernels.cuda.compile import CACHE

needs_compiler = pytest.mark.skipif(shutil.which(host.COMPILER) is None, reason="needs g++")
ADDS = 'extern "C" int add(int a, int b) { return a + b; }'
SUMS = """
extern "C" long sum(const long* x, long n) {
  long total = 0;
#pragma omp parallel for reduction(+ : total)
  for (long i = 0; i < n; ++i) total += x[i];
  return total;
}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def written(folder: Path, text: str) -> Path:
    path = folder / "given.cpp"
    path.write_text(text, encoding="utf-8")
    return path


@needs_compiler
def test_a_file_is_compiled_once_and_again_when_it_changes(tmp_path: Path, cache: Path) -> None:
    source = written(tmp_path, ADDS)
    assert host.library.__wrapped__(source).add(2, 3) == 5
    (kept,) = cache.iterdir()
    made = kept.stat().st_mtime_ns
    assert host.library.__wrapped__(source).add(2, 4) == 6
    assert kept.stat().st_mtime_ns == made
    written(tmp_path, ADDS.replace("a + b", "a - b"))
    assert host.library.__wrapped__(source).add(2, 3) == -1
    assert len(list(cache.iterdir())) == 2


@needs_compiler
def test_its_threads_are_those_that_pytorch_has(tmp_path: Path) -> None:
    library = host.library.__wrapped__(written(tmp_path, SUMS))
    library.sum.restype = ctypes.c_long
    values = (ctypes.c_long * 1000)(*range(1000))
    assert library.sum(values, ctypes.c_long(1000)) == 499_500
    runtimes = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line}
    assert len(runtimes) <= 1


@needs_compiler
def test_what_the_compiler_refuses_is_said_in_one_line_and_not_kept(tmp_path: Path, cache: Path) -> None:
    reason = host.problem.__wrapped__(written(tmp_path, "int broken( {"))
    assert reason is not None
    assert reason.startswith("g++ refuses given.cpp:")
    assert "\n" not in reason
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no g++ on PATH" in str(host.problem.__wrapped__(written(tmp_path, ADDS)))


@needs_compiler
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv(CACHE, str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="cache"):
        host.library.__wrapped__(written(tmp_path, ADDS))


# ---- what lies in the cache is run


PLANTED = ADDS.replace("a + b", "666")


@needs_compiler
@pytest.mark.parametrize("harm", ["cut", "bit", "emptied", "another's code"])
def test_code_that_is_not_as_it_was_compiled_is_compiled_again(tmp_path: Path, cache: Path, harm: str) -> None:
    source = written(tmp_path, ADDS)
    host._kept(str(shutil.which(host.COMPILER)), source)
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    (tmp_path / "planted.cpp").write_text(PLANTED)
    command = [host.COMPILER, "-shared", "-fPIC", str(tmp_path / "planted.cpp"), "-o", str(tmp_path / "planted.so")]
    subprocess.run(command, check=True)
    planted = (tmp_path / "planted.so").read_bytes()
    contents = {"cut": whole[: len(whole) // 2], "bit": bytes(changed), "emptied": b"", "another's code": planted}
    kept.write_bytes(contents[harm])
    assert host.library.__wrapped__(source).add(2, 3) == 5
    assert len(kept.read_bytes()) == len(whole)


@needs_compiler
def test_code_that_others_may_have_written_is_compiled_again(tmp_path: Path, cache: Path) -> None:
    source = written(tmp_path, ADDS)
    host._kept(str(shutil.which(host.COMPILER)), source)
    (kept,) = cache.iterdir()
    other = written(tmp_path, PLANTED)
    host._kept(str(shutil.which(host.COMPILER)), other)
    (planted,) = set(cache.iterdir()) - {kept}
    planted.rename(kept)
    kept.chmod(0o777)
    source = written(tmp_path, ADDS)
    assert host.library.__wrapped__(source).add(2, 3) == 5
    assert kept.stat().st_mode & 0o022 == 0


def test_a_folder_that_others_may_write_to_is_theirs_no_longer(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.mkdir()
    cache.chmod(0o777)
    assert compiling.own_cache() == cache
    assert cache.stat().st_mode & 0o022 == 0
    assert "could be written by others" in caplog.text


def test_a_folder_of_another_user_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    owner = cache.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    if owner == 0:
        # root's is an administrator's, unless everybody may write there
        assert compiling.own_cache() == cache
        cache.chmod(0o777)
    with pytest.raises(UserError, match=f"is another user's, who could put code there; set {CACHE}"):
        compiling.own_cache()
