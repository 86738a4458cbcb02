"""The port of the meta store: two kinds of transaction and a feed of events.

Law 2: mutable is one row, changed by compare-and-swap, its event appended in the same
transaction. Law 3: `write(lease)` fails with `LeaseLost`, changing nothing, when the lease's
generation is no longer the newest of its key; that check, not a clock, is what makes a commit
safe. Load -> think -> apply: no transaction stays open while the caller thinks.

A commit whose answer is lost may have happened: every write that matters carries an idempotency
key (ids, producers, unit keys), so doing it again finds it done.

Events that the store appends by itself, because the change is one call: `version.added` and
`version.tagged`, `version.untagged`, `version.dropped`,
`alias.moved` (subject "KIND/NAME"), `evaluation.added` ("evaluation/ID"), `deployment.changed`
("deployment/NAME"). All others are appended by the caller, in the transaction of the change.

References to blobs: a row keeps the digests given as `refs`, its own digest columns, and every
digest that stands anywhere in its JSON (a run's spec and result, a unit's result, a summary).
JSON values are plain data; NaN and infinities come back as text that `float` understands.

No connection crosses a fork: an engine opened before a fork refuses to be used in the child.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from penstock.records import (
    Alias,
    Attempt,
    Checkpoint,
    Claim,
    Deployment,
    Evaluation,
    Event,
    Kind,
    Lease,
    Memory,
    Run,
    Tag,
    Unit,
    Version,
)


class Reader(Protocol):
    """A consistent view. Every `find_*` gives None, every `get_*` raises NotFound."""

    def now(self) -> float:
        """Seconds since 1970 on the store's clock."""
        ...

    # runs
    def find_run(self, run_id: str) -> Run | None: ...
    def get_run(self, id_or_name: str) -> Run:
        """By id, unique id prefix, or the newest of that name. NotFound offers the nearest."""
        ...

    def newest_run(self, name: str, work: str | None = None) -> Run | None: ...
    def runs(
        self, limit: int = 50, name: str | None = None, states: Sequence[str] | None = None
    ) -> list[Run]:
        """Newest first."""
        ...

    def attempts(self, run_id: str) -> list[Attempt]:
        """In order of their numbers."""
        ...

    def checkpoints(self, run_id: str) -> list[Checkpoint]:
        """Newest step first; of one step only the highest generation."""
        ...

    def units(self, run_id: str, states: Sequence[str] | None = None) -> list[Unit]: ...
    def unit_counts(self, run_id: str) -> dict[str, int]:
        """state -> how many."""
        ...

    # versions
    def names(self, kind: Kind) -> list[str]: ...
    def find_version(self, kind: Kind, name: str, version: int | None = None) -> Version | None:
        """The newest when `version` is None."""
        ...

    def get_version(self, kind: Kind, reference: str) -> Version:
        """Resolve NAME[@VERSION|ALIAS]; a split is ignored. NotFound offers the nearest."""
        ...

    def find_produced(self, kind: Kind, producer: str) -> Version | None: ...
    def versions(self, kind: Kind, name: str | None = None, limit: int = 100) -> list[Version]:
        """Newest first."""
        ...

    def find_alias(self, kind: Kind, name: str, alias: str) -> Alias | None: ...
    def aliases(self, kind: Kind, name: str | None = None) -> list[Alias]: ...
    def tags(self, kind: Kind, name: str | None = None) -> list[Tag]:
        """Ordered by name, version and tag."""
        ...

    def uses(self, kind: Kind, name: str) -> dict[int, list[str]]:
        """Version -> which rows name it, as "run/ID", "evaluation/ID", "deployment/NAME" or
        "dataset/NAME@VERSION" (one whose summary names it under "sources")."""
        ...

    # evaluations and deployments
    def find_evaluation(self, key: str) -> Evaluation | None: ...
    def get_evaluation(self, evaluation_id: str) -> Evaluation: ...
    def evaluations(self, model: str | None = None, limit: int = 100) -> list[Evaluation]: ...
    def get_deployment(self, name: str) -> Deployment: ...
    def find_deployment(self, name: str) -> Deployment | None: ...
    def deployments(self) -> list[Deployment]: ...

    # the rest
    def find_lease(self, key: str) -> Lease | None:
        """Who has `key`, dead or expired included; None when it is free."""
        ...

    def claims(self, host: str | None = None) -> list[Claim]:
        """Claims on devices, of one machine or of all, in order of arrival; those of dead runs
        included."""
        ...

    def recall(self, key: str) -> dict[str, Any] | None:
        """What `remember` stored under a content key."""
        ...

    def memories(self, kind: str, after: str = "", limit: int = 1000) -> list[Memory]:
        """What is remembered under a kind, in order of the keys, those behind `after`."""
        ...

    def events(self, after: int = 0, subject: str | None = None, limit: int = 1000) -> list[Event]:
        """In commit order. `subject` may end in "*" to match a prefix."""
        ...

    def last_event(self) -> int:
        """The newest cursor, 0 when there is none."""
        ...

    def referenced(self, digests: Sequence[str]) -> set[str]:
        """Those of `digests` that some row refers to."""
        ...

    def oldest_pin(self) -> float | None:
        """When the oldest live pin was made; pins of dead holders do not count.

        A holder on another machine, of which nothing can be known, counts until it unpins.
        """
        ...


class Writer(Reader, Protocol):
    """A transaction: all of it or nothing. Raises DiskFull, ReadOnly, Unavailable."""

    def event(self, subject: str, kind: str, body: Mapping[str, Any] | None = None) -> int: ...

    # runs
    def add_run(self, run: Run, refs: Iterable[str] = ()) -> None:
        """Conflict when the id exists. `refs`: blobs that it needs, such as its source's files."""
        ...

    def change_run(self, run_id: str, **changes: Any) -> Run:
        """Set fields of the row; the state machine's own event is the caller's to append."""
        ...

    def add_attempt(self, attempt: Attempt) -> None: ...
    def began_at(self, run_id: str, number: int, step: int) -> None:
        """The step that an attempt really went on from, once its ranks have said it."""
        ...

    def end_attempt(
        self, run_id: str, number: int, cause: str, to_step: int | None, detail: Mapping[str, Any]
    ) -> None: ...
    def add_checkpoint(self, checkpoint: Checkpoint, refs: Iterable[str]) -> None:
        """Idempotent per (run, step, generation). `refs`: every digest that it needs."""
        ...

    def mark_best(self, run_id: str, step: int, metric: str) -> None:
        """Keep this checkpoint for `metric`; the mark leaves the one that had it.

        A checkpoint that is best by several metrics has `best` "a,b".
        """
        ...

    def pin_checkpoint(self, run_id: str, step: int, note: str = "") -> bool:
        """Keep this checkpoint until it is unpinned; says whether anything changed.

        An event tells of a change. Raises NotFound, BadInput (the note is not one line).
        """
        ...

    def unpin_checkpoint(self, run_id: str, step: int) -> bool:
        """Let it go with the next checkpoint of the run; says whether it was pinned."""
        ...

    def drop_checkpoint(self, run_id: str, step: int) -> None:
        """Forget the row, its marks and its references; the bytes go with the next garbage
        collection."""
        ...

    def add_units(self, run_id: str, units: Mapping[str, Mapping[str, Any]]) -> int:
        """key -> payload. Keys that exist are left alone. Returns how many were new."""
        ...

    def lease_units(self, run_id: str, generation: int, limit: int) -> list[Unit]:
        """Hand out waiting units, and leased ones of an older generation."""
        ...

    def give_back_units(self, run_id: str, keys: Sequence[str]) -> None:
        """Leased -> waiting, when a worker died."""
        ...

    def finish_units(
        self, run_id: str, results: Mapping[str, Mapping[str, Any]], refs: Iterable[str] = ()
    ) -> list[str]:
        """Commit results once; a unit that is done stays as it is. Returns the new keys."""
        ...

    def drop_units(self, run_id: str) -> None:
        """Forget the units of a run that has ended, and all its references but its source.

        For maps whose results have become something else, or are wanted by nobody. Conflict when
        it has not ended.
        """
        ...

    def fail_unit(self, run_id: str, key: str, error: Mapping[str, Any]) -> None: ...

    # versions
    def add_version(
        self,
        kind: Kind,
        name: str,
        digest: str,
        producer: str,
        summary: Mapping[str, Any],
        refs: Iterable[str],
    ) -> Version:
        """The next number of `name`; the same producer gets the version of `name` it made."""
        ...

    def move_alias(
        self,
        kind: Kind,
        name: str,
        alias: str,
        version: int,
        expect: int | None,
        reason: Mapping[str, Any] | None = None,
    ) -> Alias:
        """Compare-and-swap on the revision; None expects that there is no such alias. Conflict."""
        ...

    def tag(self, kind: Kind, name: str, version: int, tag: str) -> Tag:
        """Label a version; one that has the label keeps it. NotFound, BadInput."""
        ...

    def untag(self, kind: Kind, name: str, version: int, tag: str) -> bool:
        """Take a label away; returns whether it was there."""
        ...

    def drop_version(self, kind: Kind, name: str, version: int) -> Version:
        """Forget the row, its references, and what calls remember of blobs that only it had.

        Refused when it is the newest of its name (its number would come again), when an alias
        points at it, when it has a tag, or when a row names it (`uses`). NotFound. The bytes go
        with garbage collections after that.
        """
        ...

    # evaluations and deployments
    def add_evaluation(self, evaluation: Evaluation, refs: Iterable[str]) -> Evaluation:
        """Idempotent per key: the first one stays and is returned."""
        ...

    def put_deployment(self, deployment: Deployment, expect: int | None) -> Deployment:
        """Insert (None) or compare-and-swap on the revision. Conflict."""
        ...

    # the rest
    def take_lease(self, key: str, holder: str, ttl: float) -> Lease:
        """Take `key` with the next generation.

        Allowed when it is free, expired, or held by a process of this machine that is dead.
        Otherwise LeaseHeld, which names the holder.
        """
        ...

    def renew_lease(self, lease: Lease, ttl: float) -> Lease:
        """LeaseLost when the generation moved on."""
        ...

    def release_lease(self, lease: Lease) -> None:
        """Free it now; the generation stays. No error when it was lost."""
        ...

    def lock_claims(self, host: str) -> None:
        """Until this transaction ends nobody else passes here: claims of a machine are read,
        thought about and changed by one at a time."""
        ...

    def put_claim(self, claim: Claim) -> None:
        """Insert the run's claim, or replace it."""
        ...

    def drop_claim(self, run_id: str) -> bool:
        """Give back all that the run holds, or leave the queue; whether there was a claim."""
        ...

    def remember(self, key: str, kind: str, value: Mapping[str, Any], refs: Iterable[str]) -> None:
        """Store what a call gave under its content key. The first one stays."""
        ...

    def forget(self, keys: Iterable[str]) -> int:
        """Forget what `remember` stored under these keys; returns how many there were."""
        ...

    def refer(self, owner: str, refs: Iterable[str]) -> None:
        """Keep these blobs too for a row, named as "run/ID"."""
        ...

    def pin(self, holder: str) -> str:
        """Protect, until `unpin` or the holder's death, whatever the holder finds or writes."""
        ...

    def unpin(self, pin: str) -> None: ...


class Meta(Protocol):
    """One open store. Safe for many threads; opened anew in every process."""

    @property
    def url(self) -> str: ...

    def read(self) -> AbstractContextManager[Reader]: ...

    def write(
        self, lease: Lease | None = None, alone: bool = False
    ) -> AbstractContextManager[Writer]:
        """One transaction. With a lease: LeaseLost when its generation is not the newest.

        Holders of different leases may write at one moment, each what is its own. Whoever has no
        lease, or says `alone`, has the store to itself: what it reads stays until it commits. That
        is for what several may change: the versions of a name, what nobody refers to any more.
        """
        ...

    def wait_events(
        self, after: int, subject: str | None = None, timeout: float = 1.0, limit: int = 1000
    ) -> list[Event]:
        """Events after the cursor, waiting up to `timeout` seconds for the first one."""
        ...

    def close(self) -> None: ...
