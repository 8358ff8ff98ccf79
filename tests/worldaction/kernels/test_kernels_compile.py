"""From text to machine code: the real compilers where they are, the cache, and what a user is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from worldaction.errors import UserError
from worldaction.kernels import build
from worldaction.kernels.cuda import compile as compiling
from worldaction.kernels.cuda.source import FOLDER, Source, files, kernels, source
from worldaction.kernels.rollout.persistent import persistent_source, plan
from worldaction.kernels.weight_cache import WeightCache

needs_compiler = pytest.mark.skipif(not compiling.has_compiler(), reason="needs NVRTC or nvcc")
QUICK = build.MODELS["quick"] | {"chunk": build.CHUNK}


class Counting:
    """A compiler that remembers what it was asked."""

    version = "none-1.0"

    def __init__(self) -> None:
        self.asked: list[tuple[Source, str]] = []

    def compile(self, source: Source, arch: str) -> bytes:
        self.asked.append((source, arch))
        return f"{source.key} {arch}".encode()


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counting:
    made = Counting()
    monkeypatch.setenv(compiling.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(compiling, "compiler", lambda: made)
    return made


def test_a_source_is_compiled_once_for_each_size_and_kind_of_gpu(counting: Counting) -> None:
    one, other = source("random", BF16=0), source("random", BF16=1)
    for wanted, arch in ((one, "sm_80"), (one, "sm_90"), (other, "sm_90")):
        first = compiling.cubin(wanted, arch)
        assert compiling.cubin(wanted, arch) == first == f"{wanted.key} {arch}".encode()
    assert counting.asked == [(one, "sm_80"), (one, "sm_90"), (other, "sm_90")]
    assert len(list(compiling.cache_folder().iterdir())) == 3


def test_a_changed_text_is_compiled_again(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = source("random", BF16=0)
    compiling.cubin(wanted, "sm_90")
    changed = files("random") | {"common.cuh": "// another"}
    monkeypatch.setattr("worldaction.kernels.cuda.source.files", lambda name: changed)
    compiling.cubin(wanted, "sm_90")
    assert len(counting.asked) == 2


def test_a_key_tells_sizes_apart_and_does_not_depend_on_their_order() -> None:
    assert source("steps", D=1, U=2) == source("steps", U=2, D=1)
    assert source("steps", D=1, U=2).key != source("steps", D=2, U=1).key
    assert source("steps", D=1).key != source("persistent", D=1).key


def test_every_file_says_which_kernels_it_has_and_is_found_with_its_includes() -> None:
    found = {path.stem: set(kernels(path.stem)) for path in FOLDER.glob("*.cuh")}
    assert found["steps"] == {"input_step", "gates_step", "hidden_step", "first_step", "sample_step"}
    assert found["persistent"] == {"rollout_persistent", "sample_step"}
    assert found["denoise"] == {"denoise"}
    assert set(files("steps")) == {"steps.cuh", "categorical.cuh", "common.cuh"}
    # no header of CUDA's, which a user of NVRTC need not have
    for path in FOLDER.glob("*.cuh"):
        assert set(re.findall(r"#include [<\"](.+)[>\"]", path.read_text(encoding="utf-8"))) <= {
            *(each.name for each in FOLDER.glob("*.cuh")),
            "kernels_shim.h",
        }


def test_without_a_compiler_the_user_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_nvrtc", lambda: None)
    monkeypatch.setattr(compiling, "_nvcc", lambda: None)
    assert not compiling.has_compiler()
    with pytest.raises(UserError, match="no CUDA compiler; install"):
        compiling.compiler()


def test_the_command_line_builds_what_the_presets_need(counting: Counting) -> None:
    build.main(["--arch", "sm_90", "--model", "quick"])
    names = {each.name for each, arch in counting.asked}
    assert names == {"random", "steps", "persistent", "denoise", "denoise_exact", "dream", "scan"}
    assert {arch for _, arch in counting.asked} == {"sm_90"}
    before = len(counting.asked)
    build.main(["--arch", "sm_90", "--model", "quick"])
    assert len(counting.asked) == before


@pytest.mark.parametrize(("arguments", "said"), [(["--arch", "sm_50"], "sm_50"), (["--model", "small"], "small")])
def test_the_command_line_refuses_what_it_does_not_know(arguments: list[str], said: str, counting: Counting) -> None:
    with pytest.raises(UserError, match=said):
        build.main(arguments)
    assert not counting.asked


def test_prepared_weights_are_kept_until_they_change() -> None:
    kept: WeightCache[int] = WeightCache(2)
    calls: list[int] = []

    def make() -> int:
        calls.append(len(calls))
        return calls[-1]

    weight = torch.zeros(3)
    assert kept.get([weight], (1,), make) == kept.get([weight], (1,), make) == 0
    weight.add_(1.0)
    assert kept.get([weight], (1,), make) == 1
    assert kept.get([weight], (2,), make) == 2
    assert kept.get([weight], (1,), make) == 1
    assert kept.get([torch.zeros(3)], (1,), make) == 3
    assert kept.get([weight], (2,), make) == 4  # it had to make room


# The real compilers ---------------------------------------------------------------------------------------------------


def _compile(wanted: Source, arch: str) -> None:
    code = compiling.compiler().compile(wanted, arch)
    assert code[:4] == b"\x7fELF"
    for kernel in kernels(wanted.name):
        assert kernel.encode() in code


@needs_compiler
@pytest.mark.parametrize("arch", build.ARCHS)
@pytest.mark.parametrize("name", ["random", "steps", "persistent", "denoise", "denoise_exact", "dream", "scan"])
def test_kernels_compile_for_every_kind_of_gpu(name: str, arch: str) -> None:
    wanted = [each for each in build.sources(QUICK, arch) if each.name == name]
    # one of each kind: the last in bfloat16, where there are two
    _compile(wanted[-1], arch)


@needs_compiler
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("arch", build.ARCHS)
@pytest.mark.parametrize("model", build.MODELS)
def test_every_size_compiles_for_every_kind_of_gpu(arch: str, model: str) -> None:
    # batches have some sources in common
    for wanted in dict.fromkeys(build.sources(build.MODELS[model] | {"chunk": build.CHUNK}, arch)):
        _compile(wanted, arch)


@needs_compiler
def test_what_a_compiler_refuses_is_told_in_one_line() -> None:
    cut = plan(QUICK, 256, blocks=132, shared=232_448)
    assert cut is not None
    right = persistent_source(QUICK, cut)
    wrong = source("persistent", **dict(right.sizes) | {"SHARED": 1})
    with pytest.raises(UserError, match=r"refuses persistent .*: .*the launch reserves another size") as caught:
        compiling.compiler().compile(wrong, "sm_90")
    assert "\n" not in str(caught.value)


def test_nvcc_is_called_with_the_sizes(tmp_path: Path) -> None:
    fake, said = tmp_path / "nvcc", tmp_path / "said"
    script = f'echo "$@" > {said}\nwhile [ "$1" != "-o" ]; do shift; done\necho code > "$2"\n'
    fake.write_text(f"#!/bin/sh\n{script}", encoding="utf-8")
    fake.chmod(0o755)
    code = compiling.Nvcc(str(fake), "nvcc-0").compile(source("random", BF16=0), "sm_80")
    assert code == b"code\n"
    assert {"-cubin", "-arch=sm_80", "-DWA_BF16=0"} <= set(said.read_text(encoding="utf-8").split())
