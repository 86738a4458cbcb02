"""From GPU memory to a buffer: by a stream of its own into pinned memory, then by a plain copy.

Not tested: no machine of ours has a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.checkpoints.arrays import torch_bytes

if TYPE_CHECKING:
    from penstock.checkpoints.copying import Span

_streams: dict[Any, Any] = {}  # device -> the stream that copies; one per process and device
_pinned: dict[Any, Any] = {}  # device -> pinned memory, kept: pinning costs more than a copy


class Staged:
    """Spans whose sources are on devices. `launch`, then `order` and `drain`; each once.

    Sources are kept until they were read, so that their memory is not used again.
    """

    def __init__(self, spans: list[Span]) -> None:
        self._spans = spans
        self._events: list[tuple[Any, Any]] = []  # device, reached when its sources were read
        self._arrived: list[tuple[Span, Any]] = []
        self._begun = {device: _now(device) for device in {span.source.device for span in spans}}

    def launch(self) -> None:
        """Queue the copies behind what was queued when this was made. Does not wait for them."""
        import torch

        for device, begun in self._begun.items():
            spans = [span for span in self._spans if span.source.device == device]
            if device.type != "cuda":
                for span in spans:
                    flat = torch_bytes(span.source)[span.begin : span.begin + span.nbytes]
                    self._arrived.append((span, flat.cpu()))
                continue
            room = _room(device, sum(span.nbytes for span in spans))
            new = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream = _streams.setdefault(device, new)
            at = 0
            with torch.cuda.stream(stream):
                stream.wait_event(begun)
                for span in spans:
                    flat = torch_bytes(span.source)[span.begin : span.begin + span.nbytes]
                    part = room[at : at + span.nbytes]
                    part.copy_(flat, non_blocking=True)
                    self._arrived.append((span, part))
                    at += span.nbytes
                read = torch.cuda.Event()  # type: ignore[no-untyped-call]
                read.record(stream)
            self._events.append((device, read))

    def order(self) -> None:
        """What is queued from here on waits for the reading; this thread does not."""
        import torch

        for device, read in self._events:
            torch.cuda.current_stream(device).wait_event(read)

    def drain(self, target: Any) -> None:
        """Wait until all has arrived, and put it into the buffer."""
        for _, read in self._events:
            read.synchronize()
        for span, part in self._arrived:
            target[span.offset : span.offset + span.nbytes] = part.numpy()


def _now(device: Any) -> Any:
    """An event behind all that is queued on the device by this thread."""
    if device.type != "cuda":
        return None
    import torch

    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def _room(device: Any, nbytes: int) -> Any:
    """Pinned memory of at least this size; the one before is free, for a copy ends before the
    next begins."""
    import torch

    room = _pinned.get(device)
    if room is None or room.numel() < nbytes:
        room = _pinned[device] = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
    return room
