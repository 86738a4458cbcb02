"""Records that cannot be read or prepared: told with their place, counted, put aside.

fail        the first one ends the preparation
skip        they are left out; more than `bad_share` of all records is an error
quarantine  they are left out and become the version NAME-quarantine
"""

from __future__ import annotations

import base64
import json
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from penstock.base.errors import BadInput, PenstockError, Unavailable, UserCodeFailed
from penstock.data.formats import BadRecord

Policy = Literal["fail", "skip", "quarantine"]
POLICIES = ("fail", "skip", "quarantine")
SHOWN = 5  # places in an error
KEPT = 20  # places in the manifest's notes
SCHEMA, KEY, SPLIT = "schema", "key", "split"  # what a row did not fit, where no step raised
_LONGEST_RAW = 1 << 20  # bytes of a record that is put aside
_NUMBERED = re.compile(r"( \(row \d+( and \d+ more)?\)|: rows [\d, ]+( and \d+ more)?)$", re.M)
_OURS = str(Path(__file__).parents[2])


@dataclass(frozen=True, slots=True)
class Bad:
    """place  file and row, line or offset
    step   "read", the step that raised, or what its row did not fit: "schema", "key", "split"
    trace  the user's own traceback, "" where the reader refused it
    raw    the record: its bytes as read, or its row as JSON (bytes in base64); at most 1 MiB
    """

    place: str
    step: str
    error: str
    trace: str = ""
    raw: bytes | None = None


_MEND = {
    SCHEMA: "Make every row alike in the steps: the same columns, dtypes and shapes.",
    KEY: "A key is an integer, text or bytes, and never missing.",
    SPLIT: "Give the column that decides the split a value in every row.",
}


class Tally:
    """The bad records of one unit. In mode "fail" the first is raised.

    records  read, bad ones included
    """

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self.records = 0
        self.found: list[Bad] = []

    def copy(self) -> Tally:
        """As it is now."""
        made = Tally(self.policy)
        made.records, made.found = self.records, list(self.found)
        return made

    def unreadable(self, record: BadRecord) -> None:
        """The reader found it. Raises BadInput in mode "fail"."""
        self.records += 1
        raw = None if record.raw is None else record.raw[:_LONGEST_RAW]
        self._add(Bad(record.place, "read", record.error, raw=raw), None)

    def raised(self, place: str, step: str, error: Exception, record: Any) -> None:
        """The user's function raised. Raises UserCodeFailed in mode "fail"."""
        if isinstance(error, MemoryError) or (
            isinstance(error, Unavailable) and self.policy != "fail"
        ):
            raise error  # of the machine, not of the record
        self._add(Bad(place, step, _told(error), own_traceback(error), raw_of(record)), error)

    def unfit(self, place: str, step: str, error: str, record: Any) -> None:
        """Its row is not what a dataset of the others can hold. Raises BadInput in mode "fail"."""
        self._add(Bad(place, step, error, raw=raw_of(record)), None)

    def _add(self, bad: Bad, error: Exception | None) -> None:
        if self.policy == "fail":
            raise failure(bad) from error
        self.found.append(bad)

    def account(self) -> Account:
        """What became of its records."""
        return account([(self.records, lambda: self.found, len(self.found))])


def failure(bad: Bad) -> PenstockError:
    """The error that one bad record is in mode "fail"."""
    if bad.step == "read":
        return BadInput(
            f"{bad.place} cannot be read: {bad.error}",
            'Mend it, or leave such records out: bad="skip", or "quarantine".',
            place=bad.place,
        )
    if bad.step in _MEND:
        return BadInput(
            f"{bad.place}: {bad.error}",
            f'{_MEND[bad.step]} Or leave such records out: bad="skip", or "quarantine".',
            place=bad.place,
        )
    function = bad.step.partition(" ")[2]
    return UserCodeFailed(
        f"{function} raised {bad.error} ({bad.place})",
        'Mend the function, or leave such records out: bad="skip", or "quarantine".',
        function=function,
        place=bad.place,
        signature=f"{bad.step} {bad.error}",
        traceback=bad.trace,
    )


def own_traceback(error: Exception) -> str:
    """The user's own traceback, without our frames before it."""
    own = error.__traceback__
    while own is not None and own.tb_frame.f_code.co_filename.startswith(_OURS):
        own = own.tb_next
    return "".join(traceback.format_exception(type(error), error, own)).rstrip()


def _told(error: Exception) -> str:
    text = error.what if isinstance(error, PenstockError) else str(error)
    return f"{type(error).__name__}: {text}"


def why(error: Exception) -> str:
    """What is said of one row where an error is about rows, without their numbers."""
    if not isinstance(error, PenstockError):
        return _told(error)
    found = error.facts.get("differences")
    text = "; ".join(map(str, found)) if isinstance(found, list) else error.what
    return _NUMBERED.sub("", text)


def raw_of(record: Any) -> bytes:
    """A row as JSON, shortened."""
    try:
        text = json.dumps(record, default=_plain, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(record)
    return text[:_LONGEST_RAW].encode()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    return value.tolist() if hasattr(value, "tolist") else str(value)


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the records of a whole preparation.

    records  read, bad ones included
    bad      how many
    first    of them, in order
    steps    step -> how many
    worst    file -> how many
    """

    records: int
    bad: int
    first: tuple[Bad, ...]
    steps: dict[str, int]
    worst: dict[str, int]

    @property
    def share(self) -> float:
        return self.bad / max(1, self.records)

    def note(self, policy: str) -> dict[str, Any]:
        """For the manifest: counts and first places."""
        first = [
            {key: value for key, value in asdict(bad).items() if key not in ("raw", "trace")}
            for bad in self.first
        ]
        return {
            "policy": policy,
            "records": self.records,
            "bad": self.bad,
            "share": round(self.share, 6),
            "steps": self.steps,
            "first": first,
        }


def account(results: Iterable[tuple[int, Callable[[], list[Bad]], int]]) -> Account:
    """Of all units in order: (records read, their bad ones, asked only where there are any, how
    many)."""
    records = count = 0
    first: list[Bad] = []
    steps: Counter[str] = Counter()
    worst: Counter[str] = Counter()
    for read, of, bad in results:
        records += read
        count += bad
        for each in of() if bad else ():
            steps[each.step] += 1
            worst[file_of(each.place)] += 1
            if len(first) < KEPT:
                first.append(each)
    return Account(records, count, tuple(first), dict(steps), dict(worst.most_common(SHOWN)))


def file_of(place: str) -> str:
    """The file of a place: what stands before its row, line or offset."""
    for mark in (" row ", " line ", " record ", ":", "#"):
        place = place.partition(mark)[0]
    return place


def refuse_many(found: Account, bad_share: float) -> None:
    """Raise BadInput where more records are bad than were allowed."""
    if found.bad <= bad_share * found.records:
        return
    worst = ", ".join(f"{name} ({count})" for name, count in found.worst.items())
    shown = "\n  ".join(f"{bad.place}: {bad.error}" for bad in found.first[:SHOWN])
    raise BadInput(
        f"{found.bad} of {found.records} records are bad ({found.share:.2%}), more than the "
        f"{bad_share:.2%} that bad_share allows; most in {worst}:\n  {shown}",
        'Mend them, allow more with bad_share=, or put them aside with bad="quarantine".',
        bad=found.bad,
        records=found.records,
        worst=dict(found.worst),
        traceback=next((bad.trace for bad in found.first if bad.trace), ""),
    )


def to_rows(found: Iterable[Bad]) -> list[dict[str, Any]]:
    """For an Arrow table, and back with `of_rows`."""
    return [asdict(each) for each in found]


def of_rows(rows: Iterable[Mapping[str, Any]]) -> list[Bad]:
    return [Bad(**row) for row in rows]
