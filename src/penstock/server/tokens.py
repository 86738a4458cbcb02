"""The token that `penstock up` asks for. Only its hash is kept.

A generated token has 256 random bits, so a plain SHA-256 of it cannot be searched; a password
would need more, which is why a token of one's own must be long.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from penstock.base.errors import BadInput, Damaged
from penstock.base.files import os_errors

_SHORTEST = 20  # characters of a token of one's own
_PREFIX = "penstock_"


def hash_token(token: str) -> str:
    """The hash under which a token is kept and compared."""
    return hashlib.sha256(token.encode()).hexdigest()


def check_own(token: str) -> str:
    """A token from the settings, or BadInput when it could be guessed. Never shown."""
    if len(token) < _SHORTEST:
        raise BadInput(
            f"the token of the settings has fewer than {_SHORTEST} characters",
            "Take a longer one, or let `penstock up --new-token` make one.",
        )
    return token


def matches(token: str, hashed: str) -> bool:
    """Whether it is the token of this hash, in constant time."""
    return hmac.compare_digest(hash_token(token), hashed)


def make(path: Path) -> str:
    """A new token, whose hash takes the place of the one in `path`. Show it once.

    Raises DiskFull, ReadOnly.
    """
    token = _PREFIX + secrets.token_urlsafe(32)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os_errors("keeping the token's hash", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(opened, "w") as stream:
            stream.write(hash_token(token) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    return token


def kept(path: Path) -> str | None:
    """The hash in `path`, None when no token was ever made. Raises Damaged."""
    if not path.exists():
        return None
    with os_errors("reading the token's hash", path):
        text = path.read_text().strip()
    if re.fullmatch(r"[0-9a-f]{64}", text) is None:
        raise Damaged(
            f"{path} holds no hash of a token", "Make a new one: `penstock up --new-token`."
        )
    return text
