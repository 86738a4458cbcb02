"""The nearest known name, for errors that offer what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word closest to `word`, or None when none is close.

    >>> nearest("werkers", ["workers", "home"])
    'workers'
    """
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence for the `fix` of an error: the nearest name, or all there are.

    >>> did_you_mean("digit", ["digits", "wine"])
    'Did you mean "digits"?'
    >>> did_you_mean("x", [])
    'There are none yet.'
    """
    names = sorted(known)
    if (best := nearest(word, names)) is not None:
        return f'Did you mean "{best}"?'
    if not names:
        return "There are none yet."
    shown = ", ".join(names[:8])
    return f"There are: {shown}{', …' if len(names) > 8 else ''}."
