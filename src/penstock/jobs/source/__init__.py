"""Source as data: where a function lives, what its result depends on, and its project's files."""

from penstock.jobs.source.entry import Entry, load, locate, place
from penstock.jobs.source.git import git_commit
from penstock.jobs.source.identities import identity
from penstock.jobs.source.modules import is_installed
from penstock.jobs.source.parts import CodeIdentity, difference
from penstock.jobs.source.scripts import script_identity
from penstock.jobs.source.snapshots import import_paths, materialise, refs, snapshot

__all__ = [
    "CodeIdentity",
    "Entry",
    "difference",
    "git_commit",
    "identity",
    "import_paths",
    "is_installed",
    "load",
    "locate",
    "materialise",
    "place",
    "refs",
    "script_identity",
    "snapshot",
]
