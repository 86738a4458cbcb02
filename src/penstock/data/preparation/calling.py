"""Calls of the user's own functions: what they raise is told as theirs."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from penstock.base.errors import PenstockError, UserCodeFailed


def called(function: Callable[..., Any], params: dict[str, Any], entry: str) -> Any:
    """What the function gives; an iterator is watched, so that what it raises is its own."""
    try:
        given = function(**params)
    except PenstockError:
        raise
    except Exception as error:
        raise failed(error, entry) from error
    return _watched(given, entry) if isinstance(given, Iterator) else given


def _watched(rows: Iterable[Any], entry: str) -> Iterator[Any]:
    row = 0
    iterator = iter(rows)
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except PenstockError:
            raise
        except Exception as error:
            raise failed(error, entry, row=row) from error
        yield item
        row += 1


def failed(error: Exception, entry: str, **facts: Any) -> UserCodeFailed:
    """The user's own traceback, without our frames."""
    own = error.__traceback__.tb_next if error.__traceback__ else None
    text = "".join(traceback.format_exception(type(error), error, own)).rstrip()
    where = f" after {facts['row']} rows" if facts.get("row") else ""
    return UserCodeFailed(
        f"{entry} raised {type(error).__name__}{where}: {error}",
        "Mend the function; nothing was published.",
        function=entry,
        traceback=text,
        **facts,
    )
