"""Source as data: where a function lives, what its result depends on, and its project's files."""

from penstock.jobs.source.git import git_commit
from penstock.jobs.source.identity import CodeIdentity, difference, identity
from penstock.jobs.source.locate import Entry, load, locate
from penstock.jobs.source.snapshot import materialise, refs, snapshot

__all__ = [
    "CodeIdentity",
    "Entry",
    "difference",
    "git_commit",
    "identity",
    "load",
    "locate",
    "materialise",
    "refs",
    "snapshot",
]
