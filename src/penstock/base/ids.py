"""Ids that sort by the time they were made.

26 characters of Crockford's base 32: 48 bits of milliseconds, 80 bits of randomness, increasing
within one process even inside one millisecond (the ULID specification, github.com/ulid/spec).
Lower case, because ids become file names.
"""

from __future__ import annotations

import os
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_lock = threading.Lock()
_last_ms = -1
_last_random = 0
_owner = 0


def new_id(prefix: str = "") -> str:
    """A new id such as `run-01jd…`; `prefix` names the noun.

    >>> a, b = new_id("run"), new_id("run")
    >>> a < b, len(a)
    (True, 30)
    """
    global _last_ms, _last_random, _owner
    with _lock:
        now = time.time_ns() // 1_000_000
        if _owner != os.getpid():  # a forked child must not go on in its parent's sequence
            _owner, _last_ms = os.getpid(), -1
        if now > _last_ms:
            _last_ms, _last_random = now, int.from_bytes(os.urandom(10), "big") >> 1
        else:
            _last_random += 1
        value = (_last_ms << 80) | _last_random
    text = "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -5, -5))
    return f"{prefix}-{text}" if prefix else text
