"""What git knows about a project. Every answer may be None: no git, no checkout, no trust."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_SECONDS = 20.0  # a checkout on a slow disk; past it, git counts as absent


def git(root: Path, *arguments: str) -> bytes | None:
    """Output of one git command in `root`, or None when it fails for any reason.

    Takes no lock of the checkout, and is deaf to GIT_DIR and the like of a surrounding hook.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _both(root: Path, first: tuple[str, ...], second: tuple[str, ...]) -> list[bytes | None]:
    """Two commands at once, because each takes as long as a process needs to start."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda arguments: git(root, *arguments), (first, second)))


def git_commit(root: Path) -> str | None:
    """The short hash of the commit that is checked out, with "+" when anything in `root` differs.

    None outside of a checkout, and before its first commit.
    """
    commit, changed = _both(
        root, ("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--", ".")
    )
    if commit is None:
        return None
    return commit.decode().strip() + ("+" if changed else "")


def git_files(root: Path) -> list[str] | None:
    """Paths below `root` that are tracked, or new and not ignored; sorted, relative, with "/".

    None when git cannot say, and when `root` itself is ignored by the checkout around it.
    """
    listed, ignored = _both(
        root,
        ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "."),
        ("check-ignore", "-q", "--", "."),
    )
    if listed is None or ignored is not None:
        return None
    return sorted({os.fsdecode(path) for path in listed.split(b"\0") if path})
