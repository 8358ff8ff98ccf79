"""Kernels on a GPU: loading machine code, launching on torch's current stream, and replaying a whole loop of launches.

What runs a loop over the horizon is written against `Program` and `Load`, not against the driver: the tests give it
programs that run on a CPU.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from worldaction.errors import UserError
from worldaction.kernels import Request
from worldaction.kernels.cuda.compile import cubin, has_compiler
from worldaction.kernels.cuda.source import Source

Argument: TypeAlias = Tensor | int | float | ctypes.c_longlong
"""What a kernel takes: the address of a tensor, an int, a float, or a long long."""

OLDEST = 8  # compute capability: Ampere
SHARED_BEFORE_ASKING = 48 * 1024
_SHARED_ATTRIBUTE = "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES"


class Program(Protocol):
    """A compiled file of kernels."""

    def launch(
        self, kernel: str, grid: int, block: int, *arguments: Argument, shared: int = 0, cooperative: bool = False
    ) -> None:
        """Start a kernel.

        Args:
            kernel: its name.
            grid: how many blocks.
            block: how many threads each.
            arguments: its arguments in order.
            shared: bytes of shared memory that it asks for at launch.
            cooperative: all blocks must be resident at once.
        """
        ...


Load: TypeAlias = Callable[[Source, torch.device], Program]
"""How a program comes to a device."""


def long(value: int) -> ctypes.c_longlong:
    """A 64-bit argument, such as a stride."""
    return ctypes.c_longlong(value)


def addresses(arguments: tuple[Argument, ...]) -> tuple[ctypes.Array[ctypes.c_void_p], list[Any]]:
    """Arguments as a launch takes them: pointers to values, and the values, which must outlive the launch."""
    values = [_value(argument) for argument in arguments]
    return (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values)), values


def _value(argument: Argument) -> Any:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, ctypes.c_longlong):
        return argument
    return ctypes.c_float(argument) if isinstance(argument, float) else ctypes.c_int(argument)


def unavailable(request: Request) -> str | None:
    """Why kernels cannot run for a request, whatever they do; None if they can."""
    if not torch.cuda.is_available():
        return "no GPU that torch can use; install a CUDA build of torch on a machine with an NVIDIA GPU"
    if request.device.type != "cuda":
        return f"the inputs are on {request.device.type}; move the model to the GPU"
    capability: tuple[int, int] = torch.cuda.get_device_capability(request.device)
    if capability[0] < OLDEST:
        return f"{torch.cuda.get_device_name(request.device)} is too old; they need an Ampere GPU (sm_80) or newer"
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return "cuda-bindings is not installed; pip install cuda-bindings"
    if not has_compiler():
        return "no CUDA compiler; install NVRTC (pip install nvidia-cuda-nvrtc) or put nvcc on PATH"
    return None


def room(device: torch.device) -> tuple[int, int]:
    """Multiprocessors of a tensor's GPU, and bytes of shared memory that a block can ask for."""
    driver = importlib.import_module("cuda.bindings.driver")
    attributes = driver.CUdevice_attribute
    wanted = ("MULTIPROCESSOR_COUNT", "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN")
    blocks, shared = (
        checked(driver, "cuDeviceGetAttribute", getattr(attributes, f"CU_DEVICE_ATTRIBUTE_{name}"), device.index)
        for name in wanted
    )
    return blocks, shared


def checked(driver: Any, name: str, *arguments: Any) -> Any:
    """What a call of the driver returns.

    Raises:
        UserError: it failed.
    """
    status, *rest = getattr(driver, name)(*arguments)
    if int(status):
        raise UserError(f"{name} failed with {status!r}; set WORLDACTION_KERNELS=reference to go on without kernels")
    return rest[0] if rest else None


class _OnDevice:
    """Machine code that the driver has loaded, in the context that torch has made current."""

    def __init__(self, code: bytes, device: torch.device) -> None:
        self._driver = importlib.import_module("cuda.bindings.driver")
        self._device = device
        with torch.cuda.device(device):
            torch.cuda.current_stream()  # torch makes its context on first use
            self._module = checked(self._driver, "cuModuleLoadData", code)
        self._functions: dict[str, Any] = {}

    def launch(
        self, kernel: str, grid: int, block: int, *arguments: Argument, shared: int = 0, cooperative: bool = False
    ) -> None:
        """See `Program.launch`."""
        pointers, values = addresses(arguments)
        stream = torch.cuda.current_stream(self._device).cuda_stream
        name = "cuLaunchCooperativeKernel" if cooperative else "cuLaunchKernel"
        extra = () if cooperative else (0,)
        sizes = (grid, 1, 1, block, 1, 1, shared)
        with torch.cuda.device(self._device):
            checked(
                self._driver, name, self._function(kernel, shared), *sizes, stream, ctypes.addressof(pointers), *extra
            )
        del values

    def _function(self, kernel: str, shared: int) -> Any:
        if kernel not in self._functions:
            self._functions[kernel] = checked(self._driver, "cuModuleGetFunction", self._module, kernel.encode())
            if shared > SHARED_BEFORE_ASKING:
                attribute = getattr(self._driver.CUfunction_attribute, _SHARED_ATTRIBUTE)
                checked(self._driver, "cuFuncSetAttribute", self._functions[kernel], attribute, shared)
        return self._functions[kernel]


def load(source: Source, device: torch.device) -> Program:
    """The program of a source on a tensor's device, compiled and loaded on first use."""
    return _loaded(source, device.index)


@cache
def _loaded(source: Source, index: int) -> _OnDevice:
    major, minor = torch.cuda.get_device_capability(index)
    return _OnDevice(cubin(source, f"sm_{major}{minor}"), torch.device("cuda", index))


class Replay:
    """A sequence of launches on fixed tensors, captured into a CUDA graph on a GPU and simply called elsewhere.

    Args:
        run: launches everything; it must allocate nothing that outlives it and never wait for the device.
        device: where.
    """

    def __init__(self, run: Callable[[], None], device: torch.device) -> None:
        self._run, self._device = run, device
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Run it once on the current stream."""
        if self._device.type != "cuda":
            self._run()
            return
        with torch.cuda.device(self._device):
            if self._graph is None:
                self._graph = self._capture()
            self._graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        # a first run outside of the capture compiles, loads, and lets cuBLAS take its workspace
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            self._run()
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        return graph
