"""What a store's clients of this process did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Of one store in one process, since it was opened here; reading it costs nothing.

    requests      sent, by kind: get, head, put, copy, delete, list, upload (a multipart request)
    bytes_read    of answers that were used
    bytes_sent    of bodies, retries included
    retries       requests sent again after a failure
    throttled     answers that asked for fewer requests
    hedges        second requests beside slow reads
    hedges_won    those that answered first
    doubts        writes whose answer was lost and that were resolved by comparing content
    rereads       blobs read again because their bytes did not match
    """

    requests: dict[str, int] = field(default_factory=dict)
    bytes_read: int = 0
    bytes_sent: int = 0
    retries: int = 0
    throttled: int = 0
    hedges: int = 0
    hedges_won: int = 0
    doubts: int = 0
    rereads: int = 0

    @property
    def total(self) -> int:
        """Requests of all kinds."""
        return sum(self.requests.values())

    def sent(self, kind: str, nbytes: int = 0, count: int = 1) -> None:
        self.requests[kind] = self.requests.get(kind, 0) + count
        self.bytes_sent += nbytes
