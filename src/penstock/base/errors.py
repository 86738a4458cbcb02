"""The error family: what happened, how to mend it, and the facts.

`code` is stable and is what others match; the text may change. Every error survives pickling and
JSON, because ranks and workers send theirs home.
"""

from __future__ import annotations

from typing import Any, ClassVar


class PenstockError(Exception):
    """Root of the family.

    what   one sentence: what happened, and where
    fix    one sentence: what to do next
    facts  JSON-able details for machines (names, paths, numbers)
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, fix: str = "", **facts: Any) -> None:
        super().__init__(what, fix)
        self.what = what
        self.fix = fix
        self.facts = facts

    def __str__(self) -> str:
        return f"{self.what}\n  fix: {self.fix}" if self.fix else self.what

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.what, self.fix, self.facts)

    def as_dict(self) -> dict[str, Any]:
        """The error as JSON-able data; `from_dict` is the way back."""
        return {"code": self.code, "what": self.what, "fix": self.fix, "facts": self.facts}


def _rebuild(
    kind: type[PenstockError], what: str, fix: str, facts: dict[str, Any]
) -> PenstockError:
    return kind(what, fix, **facts)


def family() -> dict[str, type[PenstockError]]:
    """Every error class that is loaded, by its code."""
    found: dict[str, type[PenstockError]] = {}
    queue: list[type[PenstockError]] = [PenstockError]
    while queue:
        kind = queue.pop()
        found[kind.code] = kind
        queue.extend(kind.__subclasses__())
    return found


def from_dict(data: dict[str, Any]) -> PenstockError:
    """Rebuild an error from `as_dict`; an unknown code becomes the root with the code as a fact."""
    kind = family().get(data["code"])
    facts = dict(data.get("facts") or {})
    if kind is None:
        return PenstockError(data["what"], data.get("fix", ""), **{**facts, "code": data["code"]})
    return kind(data["what"], data.get("fix", ""), **facts)


class BadInput(PenstockError):
    """An argument, option, file or value that cannot be what was meant."""

    code = "bad-input"
    exit_code = 2


class SettingsError(BadInput):
    """`penstock.toml`, a `PENSTOCK_*` variable or an argument does not hold."""

    code = "settings"


class MissingMainGuard(BadInput):
    """A facade verb was called while a rank or worker imported the user's script."""

    code = "missing-main-guard"


class CannotTravel(BadInput):
    """A function, configuration or state that another process could not load again."""

    code = "cannot-travel"


class NotFound(PenstockError):
    """A name, version, alias, split or run that does not exist; the nearest is offered."""

    code = "not-found"
    exit_code = 3


class Conflict(PenstockError):
    """A compare-and-swap lost: somebody else changed the row first."""

    code = "conflict"
    exit_code = 4


class LeaseHeld(Conflict):
    """Another live process owns this run, deployment or name."""

    code = "lease-held"


class LeaseLost(Conflict):
    """This process's generation is no longer the newest; nothing it wrote was committed."""

    code = "lease-lost"


class Refused(PenstockError):
    """A rule says no: a gate that did not pass, code that changed under `on_change="refuse"`."""

    code = "refused"
    exit_code = 5


class Damaged(PenstockError):
    """Bytes that are not what their address says; what, where and which part."""

    code = "damaged"
    exit_code = 6


class Unavailable(PenstockError):
    """A store, disk or process that should answer does not."""

    code = "unavailable"
    exit_code = 7


class DiskFull(Unavailable):
    """No room to write; what was being written is not visible."""

    code = "disk-full"


class ReadOnly(Unavailable):
    """The home or a store cannot be written."""

    code = "read-only"


class NetworkHome(Unavailable):
    """The home lies on a network file system, where SQLite's locks are not safe."""

    code = "network-home"


class NewerSchema(Unavailable):
    """The home was written by a newer Penstock; it is left untouched."""

    code = "newer-schema"


class MissingExtra(Unavailable):
    """An optional package that this call needs is not installed."""

    code = "missing-extra"


class StoreUnreachable(Unavailable):
    """A remote store does not answer: refused, unknown host, timed out, or failing inside."""

    code = "store-unreachable"


class StoreThrottled(Unavailable):
    """A remote store asks for fewer requests, and went on asking until the deadline."""

    code = "store-throttled"


class NoCredentials(Unavailable):
    """No credentials for a remote store; the variables that were looked at are named."""

    code = "no-credentials"


class AccessDenied(Unavailable):
    """A remote store knows who asks and says no, or does not believe the signature."""

    code = "access-denied"


class NoSuchBucket(Unavailable):
    """The bucket or container of a remote store is not there, or lies in another region."""

    code = "no-bucket"


class ClockSkew(Unavailable):
    """This machine's clock is too far from the store's for a signature to hold."""

    code = "clock-skew"


class UserCodeFailed(PenstockError):
    """The user's own function raised; `facts` has rank, step and traceback."""

    code = "user-code"
    exit_code = 8


class OutOfMemory(UserCodeFailed):
    """The function asked for memory that the device or the machine does not have."""

    code = "out-of-memory"


class GradientsUnhealthy(PenstockError):
    """Gradients were not finite, or far beyond the usual, in too many steps in a row."""

    code = "gradients-unhealthy"
    exit_code = 9


class RunFailed(PenstockError):
    """A run ended without finishing: its budget is spent or it was told to stop."""

    code = "run-failed"
    exit_code = 9


class RanksDiverged(RunFailed):
    """Parameters that should be equal on all ranks are not; ranks and parameters are named."""

    code = "ranks-diverged"


class RunStopped(PenstockError):
    """A run was stopped on request and can be resumed."""

    code = "run-stopped"
    exit_code = 10
