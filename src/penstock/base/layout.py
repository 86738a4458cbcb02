"""Where things lie in a home. Nobody else builds these paths.

meta.db            the meta store (SQLite)
blobs/             the blob store
cache/shards/      the node's cache: shards as uncompressed Arrow IPC
cache/samples/     what is computed once about a split's episodes and lengths
cache/compiled/    what torch.compile has compiled
cache/source/      source snapshots, laid out to be imported
cache/checkpoints/ checkpoints on their way to a far blob store, and some that are there
runs/ID/logs/      controller.log, agent.log, rank-0.log, rank-0.stacks, …
runs/ID/signals/   segments that are not in the blob store yet
runs/ID/scratch/   checkpoints on their way to the blob store when memory has no room
deployments/NAME/  replica.log
server-token       hash of the token that `penstock up` asks for
tmp/               half-written things; anything here may be deleted when nobody runs
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from penstock.base.errors import Unavailable

_LONGEST_BASE = 46  # bytes; with /penstock-UID/HASH/SOCKET no path is over 107


@dataclass(frozen=True, slots=True)
class Layout:
    """root  the home's folder; nothing is created by asking for a path."""

    root: Path

    @property
    def meta_url(self) -> str:
        return f"sqlite:///{self.root / 'meta.db'}"

    @property
    def blobs_url(self) -> str:
        return f"file://{self.root / 'blobs'}"

    @property
    def shards(self) -> Path:
        return self.root / "cache" / "shards"

    @property
    def samples(self) -> Path:
        return self.root / "cache" / "samples"

    @property
    def cache_limit(self) -> Path:
        """A file with the bytes that the cache of shards may take, where a setting says so."""
        return self.shards / "limit"

    @property
    def cache_quotas(self) -> Path:
        """A folder for each dataset that has a part of the cache to itself."""
        return self.shards / "quotas"

    def quota_of(self, dataset: str) -> Path:
        return self.cache_quotas / quote(dataset, safe="")

    def shards_of(self, dataset: str) -> Path:
        """The cache of shards of one dataset: its own part where there is one."""
        own = self.quota_of(dataset)
        return own if (own / self.cache_limit.name).is_file() else self.shards

    @property
    def compiled(self) -> Path:
        return self.root / "cache" / "compiled"

    @property
    def sources(self) -> Path:
        return self.root / "cache" / "source"

    @property
    def staged(self) -> Path:
        """Checkpoints on this machine's disk, before a far blob store."""
        return self.root / "cache" / "checkpoints"

    @property
    def staged_limit(self) -> Path:
        """A file with the bytes that they may take, where a setting says so."""
        return self.staged / "limit"

    @property
    def starts(self) -> Path:
        """What scripts note of how their last run began."""
        return self.root / "cache" / "starts"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"

    def run(self, run_id: str) -> Path:
        return self.root / "runs" / run_id

    def logs(self, run_id: str) -> Path:
        return self.run(run_id) / "logs"

    def signals(self, run_id: str) -> Path:
        return self.run(run_id) / "signals"

    def scratch(self, run_id: str) -> Path:
        return self.run(run_id) / "scratch"

    def deployment(self, name: str) -> Path:
        return self.root / "deployments" / name

    @property
    def server_token(self) -> Path:
        return self.root / "server-token"

    def runtime(self, key: str, create: bool = True) -> Path:
        """A private folder for sockets, outside the home: socket paths end at 107 bytes.

        Named by a hash of home and key, owned by this user, mode 0700. In /tmp when the folder
        for temporary files has too long a name.

        create  make it if need be; who only looks leaves no folder behind
        Raises Unavailable for one that is not private.
        """
        wanted = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        fits = len(os.fsencode(wanted)) <= _LONGEST_BASE
        top = (wanted if fits else Path("/tmp")) / f"penstock-{os.getuid()}"
        name = hashlib.sha256(f"{self.root}\0{key}".encode()).hexdigest()[:20]
        for folder in (top, top / name):
            if create:
                folder.mkdir(mode=0o700, exist_ok=True)
            elif not os.path.lexists(folder):
                break
            found = folder.lstat()
            private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
            if not private or found.st_mode & 0o077:
                raise Unavailable(
                    f"{folder} is not a private folder of this user",
                    "Remove it, or set XDG_RUNTIME_DIR to a folder that only you can read.",
                    path=str(folder),
                )
        return top / name
