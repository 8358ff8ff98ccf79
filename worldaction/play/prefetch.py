"""Batches on their way to a GPU before they are asked for.

TorchRL's replay buffer prefetches, too, but its sampler is then ahead of the training when a checkpoint is written, and
the batches in between would be lost on a resume. Here the state is that of the batch that was handed out last.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from tensordict import TensorDict

from worldaction.play.windows import WindowBatches

Prepare = Callable[[TensorDict], TensorDict]
PATIENCE = 0.1
"""Seconds between two looks whether a thread that waits for room should end."""


class Batches(Protocol):
    """What a training asks for its batches."""

    def sample(self) -> TensorDict:
        """The next batch."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None:
        """End what draws them."""
        ...


class Here:
    """Batches drawn when they are asked for."""

    def __init__(self, batches: WindowBatches, prepare: Prepare) -> None:
        """
        Args:
            batches: where they come from.
            prepare: done to each of them.
        """
        self._batches, self._prepare = batches, prepare

    def sample(self) -> TensorDict:
        """The next batch."""
        return self._prepare(self._batches.sample())

    def state_dict(self) -> dict[str, Any]:
        """Where the order of batches stands."""
        return self._batches.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._batches.load_state_dict(state)

    def close(self) -> None:
        """Nothing is at work between two batches."""


class _Drawn(NamedTuple):
    batch: TensorDict | None
    after: dict[str, Any]
    copied: torch.cuda.Event | None
    error: BaseException | None


class Ahead:
    """Batches drawn by a thread and copied to a device while it computes; the same ones in the same order as `Here`."""

    def __init__(self, batches: WindowBatches, prepare: Prepare, device: torch.device, *, depth: int = 2) -> None:
        """
        Args:
            batches: where they come from; nobody else draws from them.
            prepare: done to each of them on the host.
            device: where they are wanted.
            depth: batches that may wait there.
        """
        self._batches, self._prepare, self._device, self._depth = batches, prepare, device, depth
        self._state = batches.state_dict()
        self._thread: threading.Thread | None = None

    def sample(self) -> TensorDict:
        """The next batch, on the device.

        Raises:
            Exception: what drawing it raised.
        """
        if self._thread is None:
            self._start()
        drawn = self._next()
        if drawn.error is not None:
            self.close()
            raise drawn.error
        assert drawn.batch is not None
        self._state = drawn.after
        if drawn.copied is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(drawn.copied)
            for value in drawn.batch.values(True, True):
                # its memory belongs to the stream that copied it, which must not take it back too early
                value.record_stream(stream)
        return drawn.batch

    def state_dict(self) -> dict[str, Any]:
        """Where the order of batches stands, as if none had been drawn ahead."""
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; what was drawn ahead is forgotten."""
        self.close()
        self._batches.load_state_dict(state)
        self._state = self._batches.state_dict()

    def close(self) -> None:
        """End the thread; the next batch is again the one after the last that was handed out."""
        if self._thread is None:
            return
        self._end.set()
        self._thread.join()
        self._thread = None
        self._batches.load_state_dict(self._state)

    def _start(self) -> None:
        self._queue: queue.Queue[_Drawn] = queue.Queue(self._depth)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def _next(self) -> _Drawn:
        assert self._thread is not None
        while True:
            # asked first: what it has handed over before its end is there
            alive = self._thread.is_alive()
            try:
                return self._queue.get(timeout=PATIENCE)
            except queue.Empty:
                if not alive:
                    raise RuntimeError("the thread that draws batches has ended without a word") from None

    def _work(self) -> None:
        stream: torch.cuda.Stream | None = None
        while not self._end.is_set():
            try:
                if stream is None and self._device.type == "cuda":
                    stream = torch.cuda.Stream(self._device)
                drawn = self._draw(stream)
            except BaseException as error:  # noqa: BLE001 - it is raised again where the batch is asked for
                drawn = _Drawn(None, {}, None, error)
            if not self._hand(drawn) or drawn.error is not None:
                return

    def _draw(self, stream: torch.cuda.Stream | None) -> _Drawn:
        batch = self._prepare(self._batches.sample())
        after = self._batches.state_dict()
        if stream is None:
            return _Drawn(batch.to(self._device), after, None, None)
        with torch.cuda.stream(stream):
            batch = batch.pin_memory().to(self._device, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(stream)
        # the pinned memory must live until it was copied
        copied.synchronize()
        return _Drawn(batch, after, copied, None)

    def _hand(self, drawn: _Drawn) -> bool:
        """Whether it was taken over before the end."""
        while not self._end.is_set():
            try:
                self._queue.put(drawn, timeout=PATIENCE)
            except queue.Full:
                continue
            return True
        return False
