"""Errors on their way from a task to the caller.

What would happen again is sent home as a result, so that no cluster runs the task again; what may
be over soon (a store that does not answer) is raised, so that the cluster does. Its text then
holds the error as JSON, from which the caller makes it again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from penstock.base.errors import PenstockError, StoreThrottled, StoreUnreachable, from_dict

_MARK = "penstock-error:"
_MARKED = re.compile(re.escape(_MARK) + r"([0-9a-f]+):")
_PASSING = (StoreUnreachable, StoreThrottled)


class Passing(Exception):
    """Raised in a task where running it again may help; its text holds the error."""

    def __init__(self, error: PenstockError) -> None:
        told = json.dumps(error.as_dict(), default=str).encode().hex()
        super().__init__(f"{error.what} [{_MARK}{told}:]")


def told(work: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What the work of a task gave, or its error as a result. Raises Passing."""
    try:
        return work()
    except _PASSING as error:
        raise Passing(error) from error
    except PenstockError as error:
        return [{"error": json.loads(json.dumps(error.as_dict(), default=str))}]


def results(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of all tasks. Raises the first error that a task sent home."""
    listed = list(found)
    for each in listed:
        if "error" in each:
            raise from_dict(each["error"])
    return listed


def in_text(text: str) -> PenstockError | None:
    """The error that a task raised, in what the cluster says of its failure.

    >>> from penstock.base.errors import StoreUnreachable
    >>> in_text(f"task 3 failed: {Passing(StoreUnreachable('s3 is away', 'Wait.'))}").what
    's3 is away'
    """
    match = _MARKED.search(text)
    return None if match is None else from_dict(json.loads(bytes.fromhex(match[1])))
