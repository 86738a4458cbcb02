"""Which file system a folder lies on, and whether SQLite's locks can be trusted there.

On a network file system two machines may both believe that they hold a lock, and the shared
memory of the write-ahead log is not shared: the store would be corrupted silently. So such a
home is refused before anything is written.
"""

from __future__ import annotations

import re
from pathlib import Path

from penstock.base.errors import NetworkHome

# Types as /proc/self/mountinfo names them (proc(5)).
_NETWORK = re.compile(
    r"nfs4?|cifs|smb\w*|9p|afs|ncpfs?|coda|ceph|lustre|gpfs|beegfs\w*|glusterfs|orangefs|pvfs2|panfs"
    r"|fuse\.(sshfs|glusterfs\S*|ceph\S*|s3fs|s3ql|gcsfuse|rclone|juicefs|goofys|mount-s3|blobfuse\S*"
    r"|davfs\S*|smb\S*|nfs\S*|curlftpfs|cvmfs\S*|weed\S*|moosefs|mfs\S*|lizardfs|lfs)|davfs"
)
_ESCAPE = re.compile(r"\\([0-7]{3})")


def file_system(path: Path, mountinfo: str) -> tuple[str, str]:
    """(type, mount point) of the mount that `path`, absolute and resolved, lies on.

    mountinfo  text in the form of /proc/self/mountinfo; a later mount hides an earlier one
    returns    ("", "") when no line covers the path
    """
    best = ("", "")
    for line in mountinfo.splitlines():
        head, separator, tail = line.partition(" - ")
        fields = head.split()
        if not separator or len(fields) < 5:
            continue
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
        if path.is_relative_to(point) and len(point) >= len(best[1]):
            best = (tail.split()[0], point)
    return best


def is_network(kind: str) -> bool:
    """Whether a file system type is one that several machines share.

    >>> is_network("nfs4"), is_network("fuse.sshfs"), is_network("ext4"), is_network("overlay")
    (True, True, False, False)
    """
    return _NETWORK.fullmatch(kind) is not None


def refuse_network(path: Path, mountinfo: str | None = None) -> None:
    """Raise NetworkHome when `path` (which need not exist yet) lies on a network file system."""
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        except OSError:
            return  # not Linux: nothing can be told
    kind, point = file_system(path.resolve(), mountinfo)
    if is_network(kind):
        raise NetworkHome(
            f"{path} lies on a network file system ({kind} at {point}), "
            "where SQLite's locks are not safe",
            "Point `home` (PENSTOCK_HOME) to a folder on a local disk, or set `meta` to a "
            "PostgreSQL URL.",
            path=str(path),
            file_system=kind,
            mount=point,
        )
