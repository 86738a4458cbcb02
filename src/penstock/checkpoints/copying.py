"""The copy of a plan's bytes into a buffer: all at once, or the larger part of it beside a step.

What may change at any time is copied by `now`. The rest is cut into turns, which any thread may
take; before something changes these tensors it must have seen `released`. Whether one of them
changed all the same is told by `changed`: torch counts the changes of a tensor in `_version`.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.base.errors import BadInput
from penstock.checkpoints.arrays import numpy_bytes, torch_bytes
from penstock.checkpoints.devices import Staged

if TYPE_CHECKING:
    from penstock.checkpoints.layout import Plan

TURN = 1 << 20  # bytes: short enough to wait for, long enough that Python costs nothing


class Span(NamedTuple):
    """Bytes [begin, begin + nbytes) of a leaf go to [offset, offset + nbytes) of the part."""

    name: str
    source: Any
    begin: int
    offset: int
    nbytes: int


def at_once(_: Any) -> bool:
    """`later` for a copy that leaves nothing for later."""
    return False


class Copy:
    """One copy of one plan.

    buffer  writable, at least `plan.nbytes` long; what lies behind that is left alone
    later   for every leaf: may it be copied later, because nothing changes it until then
    Raises BadInput when the buffer cannot take it.
    """

    def __init__(
        self, plan: Plan, buffer: memoryview, later: Callable[[Any], bool] = at_once
    ) -> None:
        self._target = _writable(buffer, plan.nbytes)
        self._nbytes = plan.nbytes
        self._at_once: list[Span] = []
        self._later: list[Span] = []
        self._gaps: list[tuple[int, int]] = []
        end = 0
        for span in plan.spans():
            if span.offset > end:
                self._gaps.append((end, span.offset))
            end = span.offset + span.nbytes
            (self._later if later(span.source) else self._at_once).append(span)
        self._gaps.append((end, plan.nbytes))
        self._turns: deque[Callable[[], None]] = deque()
        self._open = 0  # turns that are not done
        self._staged: Staged | None = None
        self._marks: list[tuple[str, Any, int, int]] = []
        self._moved = threading.Condition()

    # -- in the thread that owns the state ------------------------------------------------------

    def now(self) -> None:
        """Copy what does not wait, zero the padding, and note how the rest looks."""
        for low, high in self._gaps:
            self._target[low:high] = 0
        devices = [span for span in self._at_once if _is_on_device(span.source)]
        for span in self._at_once:
            if not _is_on_device(span.source):
                _copy(self._target, span)
        if devices:
            staged = Staged(devices)
            staged.launch()
            staged.drain(self._target)
        self._prepare()

    def _prepare(self) -> None:
        seen = {id(span.source): span for span in self._later}  # a tensor may lie in several spans
        for span in seen.values():
            tensor = span.source
            self._marks.append((span.name, tensor, tensor._version, tensor.data_ptr()))
        devices = [span for span in self._later if _is_on_device(span.source)]
        if devices:
            self._staged = Staged(devices)
            self._turns.append(self._staged.launch)
        pack: list[Span] = []
        size = 0
        for span in self._later:
            if _is_on_device(span.source):
                continue
            pack.append(span)
            size += span.nbytes
            if size >= TURN:
                self._add(pack)
                pack, size = [], 0
        self._add(pack)
        self._open = len(self._turns)

    def _add(self, pack: list[Span]) -> None:
        """A turn for several small spans, or several for a large one at the end of the pack."""
        if not pack:
            return
        *small, last = pack
        if small:
            self._turns.append(partial(_copy_all, self._target, small))
        if last.nbytes <= 2 * TURN or not last.source.is_contiguous():
            self._turns.append(partial(_copy, self._target, last))
            return
        for low in range(0, last.nbytes, TURN):
            size = min(TURN, last.nbytes - low)
            part = Span(last.name, last.source, last.begin + low, last.offset + low, size)
            self._turns.append(partial(_copy, self._target, part))

    @property
    def released(self) -> bool:
        """Whether nothing is left that reads the state. On a GPU: nothing that is not queued."""
        return self._open == 0

    def release(self) -> None:
        """Return when it is released: takes part in what is left, and makes the GPU's queue wait
        for the reading."""
        while self.take_turn():
            pass
        with self._moved:
            self._moved.wait_for(lambda: self._open == 0)
        if self._staged is not None:
            self._staged.order()

    def changed(self) -> str | None:
        """The name of a tensor that was changed since `now`; None: all are as they were.

        Only in the thread that might change them, between two operations, and after `release`.
        """
        for name, tensor, version, address in self._marks:
            if tensor._version != version or tensor.data_ptr() != address:
                return name
        return None

    # -- in any thread --------------------------------------------------------------------------

    def take_turn(self) -> bool:
        """Copy a piece of what is left; False: nothing is left to begin."""
        try:
            turn = self._turns.popleft()
        except IndexError:
            return False
        try:
            turn()
        finally:
            with self._moved:
                self._open -= 1
                if self._open == 0:
                    self._moved.notify_all()
        return True

    def is_still_so(self) -> bool:
        """Whether the state that was copied still is what the buffer holds, byte by byte: for a
        thread that cannot ask whether an operation is under way. False when it is not known."""
        if self._staged is not None or self.changed() is not None:
            return False
        same = all(_is_equal(self._target, span) for span in self._later)
        return same and self.changed() is None

    def complete(self) -> None:
        """After the last turn, in one thread: wait for the others', and for what a GPU sends."""
        with self._moved:
            self._moved.wait_for(lambda: self._open == 0)
        if self._staged is not None:
            self._staged.drain(self._target)


def _writable(buffer: memoryview, nbytes: int) -> Any:
    import numpy as np

    if buffer.readonly or buffer.nbytes < nbytes:
        raise BadInput(
            f"a buffer of {buffer.nbytes} bytes cannot take a part of {nbytes} bytes",
            "Give a writable buffer of at least plan.nbytes.",
            wanted=nbytes,
            got=buffer.nbytes,
        )
    return np.frombuffer(buffer, dtype=np.uint8)


def _copy(target: Any, span: Span) -> None:
    """NumPy's assignment is one memcpy in this thread, without Python's lock. torch's would use
    the threads that compute the step."""
    source, stop = span.source, span.begin + span.nbytes
    flat = torch_bytes(source).numpy() if _is_tensor(source) else numpy_bytes(source)
    target[span.offset : span.offset + span.nbytes] = flat[span.begin : stop]


def _is_equal(target: Any, span: Span) -> bool:
    import numpy as np

    flat = torch_bytes(span.source).numpy()[span.begin : span.begin + span.nbytes]
    copied = target[span.offset : span.offset + span.nbytes]
    turns = range(0, span.nbytes, TURN)
    return all(np.array_equal(flat[at : at + TURN], copied[at : at + TURN]) for at in turns)


def _copy_all(target: Any, spans: list[Span]) -> None:
    for span in spans:
        _copy(target, span)


def _is_tensor(source: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _is_on_device(source: Any) -> bool:
    return _is_tensor(source) and source.device.type != "cpu"
