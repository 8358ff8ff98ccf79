"""Launching: what the driver is told, and that a loop of launches is captured once and replayed."""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kernels_shim import ShimError, build, load, needs_shim

from worldaction.errors import UserError
from worldaction.kernels import typical
from worldaction.kernels.cuda import launch
from worldaction.kernels.cuda.launch import Replay, addresses, long
from worldaction.kernels.cuda.source import files, source


class Driver:
    """A driver that writes down what it is asked, and the values behind the addresses of a launch's arguments."""

    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared")
    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT=132, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN=232_448
    )

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.status = 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> tuple[Any, ...]:
            if name.startswith("cuLaunch"):
                pointers = (ctypes.c_void_p * 2).from_address(arguments[9])
                values = (ctypes.c_int.from_address(pointers[0]).value, ctypes.c_float.from_address(pointers[1]).value)
                arguments = (*arguments[:9], values, *arguments[10:])
            self.calls.append((name, *arguments))
            return (self.status, arguments[0] if name == "cuDeviceGetAttribute" else f"a {name}")

        return call


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setattr(launch.importlib, "import_module", lambda name: made)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: SimpleNamespace(cuda_stream=77))
    return made


def test_a_launch_goes_to_the_current_stream_with_the_addresses_of_its_arguments(driver: Driver) -> None:
    program = launch._OnDevice(b"code", torch.device("cuda", 0))
    program.launch("first", 3, 64, 5, 0.5)
    program.launch("second", 4, 32, 6, 1.5, shared=100_000, cooperative=True)
    program.launch("second", 4, 32, 7, 2.5, shared=100_000, cooperative=True)
    assert driver.calls == [
        ("cuModuleLoadData", b"code"),
        ("cuModuleGetFunction", "a cuModuleLoadData", b"first"),
        ("cuLaunchKernel", "a cuModuleGetFunction", 3, 1, 1, 64, 1, 1, 0, 77, (5, 0.5), 0),
        ("cuModuleGetFunction", "a cuModuleLoadData", b"second"),
        ("cuFuncSetAttribute", "a cuModuleGetFunction", "shared", 100_000),
        ("cuLaunchCooperativeKernel", "a cuModuleGetFunction", 4, 1, 1, 32, 1, 1, 100_000, 77, (6, 1.5)),
        ("cuLaunchCooperativeKernel", "a cuModuleGetFunction", 4, 1, 1, 32, 1, 1, 100_000, 77, (7, 2.5)),
    ]


def test_what_the_driver_refuses_is_told_with_a_way_out(driver: Driver) -> None:
    driver.status = 700
    with pytest.raises(UserError, match="cuModuleLoadData failed with 700; set WORLDACTION_KERNELS=reference"):
        launch._OnDevice(b"code", torch.device("cuda", 0))


def test_a_gpu_s_size_is_asked_of_the_driver(driver: Driver) -> None:
    assert launch.room(torch.device("cuda", 0)) == (132, 232_448)


def test_arguments_keep_their_widths() -> None:
    tensor = torch.zeros(3)
    pointers, values = addresses((tensor, 7, 0.25, long(2**40)))
    assert [type(value) for value in values] == [ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_longlong]
    assert values[0].value == tensor.data_ptr()
    assert ctypes.c_longlong.from_address(pointers[3]).value == 2**40


def test_a_kernel_on_the_cpu_or_an_old_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "the inputs are on cpu" in str(launch.unavailable(typical(torch.device("cpu"))))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Turing")
    assert "Turing is too old" in str(launch.unavailable(typical(torch.device("cuda"))))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    assert "pip install cuda-bindings" in str(launch.unavailable(typical(torch.device("cuda"))))


def test_a_replay_off_the_gpu_is_a_call() -> None:
    calls: list[int] = []
    replay = Replay(lambda: calls.append(1), torch.device("cpu"))
    replay()
    replay()
    assert calls == [1, 1]


# The shim itself: it must not let a broken kernel pass ----------------------------------------------------------------

BROKEN = {
    "a barrier that not all threads of the block reach": "if (threadIdx.x == 5) __shfl_xor_sync(~0u, 1, 1); "
    "else __syncthreads();",
    "a write past the end of shared memory": "WA_SHARED_BYTES(bytes); bytes[WA_N + threadIdx.x] = 1;",
}


@needs_shim
@pytest.mark.parametrize("said", BROKEN)
def test_the_shim_reports(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels_shim.kernels", lambda name: ("broken",))
    text = f'#include "common.cuh"\nWA_KERNEL broken(float* out) {{ {BROKEN[said]} }}\n'
    program = build(source("random", BF16=0, N=64), files("random") | {"random.cuh": text})
    with pytest.raises(ShimError, match=said):
        program.launch("broken", 1, 64, torch.zeros(1), shared=64)


@needs_shim
def test_the_shim_lets_what_is_right_pass() -> None:
    program = load(source("random", BF16=0), torch.device("cpu"))
    out = torch.full((1, 1, 2), torch.nan)
    program.launch("uniforms", 1, 32, torch.tensor([0, 0, 0]), torch.tensor([0]), out, 1, 1, 2)
    assert out.isfinite().all()
