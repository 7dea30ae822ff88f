"""Work on a GPU that waits for it without holding up what the GPU does next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor


class OneBehind:
    """Hands batches on while the GPU is busy with the next one, on a stream of its own.

    Whoever takes a batch may wait for its stream (to read a number, say): the next forward pass is queued by then.

    Args:
        device: The GPU.
        take: Gets number and values of each batch, in order.
    """

    def __init__(self, device: torch.device, take: Callable[[int, dict[str, Tensor]], None]) -> None:
        self._device = device
        self._take = take
        self._stream = torch.cuda.Stream(device)
        self._waiting: tuple[int, dict[str, Tensor], torch.cuda.Event] | None = None

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Run what makes the states on the stream that changes them, after what has been queued so far."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            yield

    def put(self, number: int, values: dict[str, Tensor]) -> None:
        """Take a batch and hand on the one before.

        Args:
            number: What ``take`` is told.
            values: Copied, since a loader or a CUDA graph may use their memory again.
        """
        copies = {name: value.clone() for name, value in values.items()}
        ready = torch.cuda.Event()
        ready.record(torch.cuda.current_stream(self._device))
        self._hand_on()
        self._waiting = number, copies, ready

    def finish(self) -> None:
        """Hand on the last batch and wait for the GPU."""
        self._hand_on()
        torch.cuda.synchronize(self._device)

    def _hand_on(self) -> None:
        if self._waiting is None:
            return
        (number, values, ready), self._waiting = self._waiting, None
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(ready)
            for value in values.values():
                if value.device.type == self._device.type:  # groups that are text come from the CPU
                    value.record_stream(self._stream)  # its memory is not given away before this stream is done with it
            self._take(number, values)


class LateLooks:
    """Looks at numbers on a GPU when it has come to them, for what runs inside of :meth:`during`."""

    def __init__(self) -> None:
        self._open: list[tuple[int, Callable[[list[float]], None], Tensor, torch.cuda.Event]] = []
        self._number = 0

    @contextmanager
    def during(self, number: int) -> Iterator[None]:
        """Note what :func:`look` is asked for meanwhile, as of batch ``number``."""
        self._number = number
        token = _LATE.set(self)
        try:
            yield
        finally:
            _LATE.reset(token)

    def note(self, judge: Callable[[list[float]], None], numbers: Tensor) -> None:
        """Send numbers on their way to the host."""
        copied = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        copied.copy_(numbers, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(numbers.device))
        self._open.append((self._number, judge, copied, arrived))

    def judge(self, wait: bool = False) -> tuple[int, Exception] | None:
        """Judge the numbers that have arrived, or all of them.

        Returns:
            The first batch that was refused, with the error; None if none was.
        """
        while self._open and (wait or self._open[0][-1].query()):
            number, judge, copied, arrived = self._open.pop(0)
            arrived.synchronize()
            try:
                judge(copied.tolist())
            except ValueError as error:
                return number, error
        return None


_LATE: ContextVar[LateLooks | None] = ContextVar("late looks", default=None)


def look(numbers: Tensor, judge: Callable[[list[float]], None]) -> None:
    """Let numbers be judged: at once, or on a GPU during a pass when they are there.

    Args:
        numbers: A small vector.
        judge: Gets them, and raises a ValueError where they are wrong.

    Example:
        >>> import torch
        >>> from lightning_transfer.utilities.overlap import look
        >>> look(torch.ones(2), lambda numbers: print(numbers))
        [1.0, 1.0]
    """
    late = _LATE.get()
    if late is None or numbers.device.type != "cuda":
        judge(numbers.tolist())
    else:
        late.note(judge, numbers)
