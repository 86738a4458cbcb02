"""Blobs in a folder of this machine.

ab/<62 hex>              a visible blob, mode 0444
condemned/ab/<62 hex>    one between `condemn` and `purge`; its mtime is when it was condemned
tmp/<owner>~<number>     one that is being written; the owner's death makes it rubbish

A blob is written to tmp/, flushed, renamed into place, and the folder flushed: a reader sees all
of it or nothing, and what `put` returned survives a power cut. Renaming over an existing blob is
harmless, because both hold the same bytes.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from penstock.base.files import from_os_error, os_errors, sync_folder
from penstock.base.hashing import (
    PREFIX,
    Hasher,
    digest_bytes,
    digest_chunks,
    digest_file,
    is_digest,
    read_chunks,
)
from penstock.base.process import Identity
from penstock.blobs.check import damaged, hexdigits, missing, span
from penstock.blobs.port import Begun, Stat

_HEX = frozenset("0123456789abcdef")
_numbers = itertools.count()


class _Scratch:
    """A new file in tmp/; `drop` removes it, unless it was renamed."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        self._stream = path.open("xb")

    def write(self, data: bytes | memoryview) -> None:
        self._stream.write(data)
        self.size += memoryview(data).nbytes

    def make_durable(self) -> None:
        self._stream.flush()
        os.fchmod(self._stream.fileno(), 0o444)
        os.fsync(self._stream.fileno())

    def drop(self) -> None:
        with suppress(OSError):  # a full disk is told where it was written to
            self._stream.close()
        self.path.unlink(missing_ok=True)


class LocalBlobs:
    """A folder engine; safe for many threads and processes, and it may cross a fork.

    Holds no open file between calls. Opening it creates nothing, so that a read-only home can
    be read, and removes what dead writers left in tmp/.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tmp = root / "tmp"
        self._sweep()

    @property
    def url(self) -> str:
        return f"file://{self._root}"

    # writing

    def put(self, data: bytes | memoryview | Iterable[bytes], *, mend: bool = False) -> str:
        begun = self.begin(data, mend=mend)
        begun.finish()
        return begun.digest

    def begin(self, data: bytes | memoryview | Iterable[bytes], *, mend: bool = False) -> Begun:
        known = None
        if isinstance(data, bytes | bytearray | memoryview):
            view = memoryview(data).cast("B") if memoryview(data).nbytes else memoryview(b"")
            known, data = digest_bytes(view), [view]  # type: ignore[list-item]
            with os_errors("writing a blob", self._root):
                if self._settled(known, view.nbytes, mend):
                    return _nothing_left(known, view.nbytes)
        with os_errors("writing a blob", self._root):
            scratch = self._scratch()
        try:
            return self._begun(scratch, data, known, mend)
        except BaseException:
            scratch.drop()
            raise

    def _begun(
        self, scratch: _Scratch, data: Iterable[bytes], known: str | None, mend: bool
    ) -> Begun:
        hasher = Hasher()
        pieces = iter(data)
        with os_errors("writing a blob", self._root):
            for piece in pieces:
                if known is None:
                    hasher.update(piece)
                scratch.write(piece)
            digest = known or hasher.digest
            if known is None and self._settled(digest, scratch.size, mend):
                scratch.drop()
                return _nothing_left(digest, scratch.size)

        def finish() -> None:
            with os_errors("writing a blob", self._root):
                self._place(scratch, digest)

        return Begun(digest, scratch.size, 0, finish, scratch.drop)

    def put_file(self, path: Path) -> str:
        try:
            stream = path.open("rb")
        except OSError as error:
            raise from_os_error(error, "reading a file", path) from error
        with stream:
            return self.put(read_chunks(stream))

    def _settled(self, digest: str, size: int, mend: bool) -> bool:
        """Whether the blob is there already, with the right size, and its name is durable.

        mend  also whether it has the right bytes
        Another writer may have renamed it a moment ago without having flushed the folder yet.
        """
        path = self._visible(digest)
        try:
            if path.stat().st_size != size:
                return False  # torn by a failing disk: write it anew
            if mend and digest_file(path) != digest:
                return False
        except FileNotFoundError:
            return False
        sync_folder(path.parent)
        return True

    def _scratch(self) -> _Scratch:
        self._tmp.mkdir(parents=True, exist_ok=True)
        return _Scratch(self._tmp / f"{_owner()}~{next(_numbers)}")

    def _place(self, scratch: _Scratch, digest: str) -> None:
        try:
            scratch.make_durable()
            self._rename(scratch.path, self._visible(digest))
        finally:
            scratch.drop()

    def _rename(self, source: Path, target: Path) -> None:
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            sync_folder(target.parent.parent)
        source.replace(target)
        sync_folder(target.parent)

    # reading

    def get(self, digest: str) -> bytes:
        with self.open(digest) as stream, os_errors("reading a blob", self._root):
            data = stream.read()
        if (found := digest_bytes(data)) != digest:
            raise damaged(digest, self.url, found, len(data))
        return data

    def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes:
        with self.open(digest) as stream, os_errors("reading a blob", self._root):
            first, end = span(os.fstat(stream.fileno()).st_size, start, length)
            stream.seek(first)
            return stream.read(end - first)

    @contextmanager
    def open(self, digest: str) -> Iterator[BinaryIO]:
        # Visible, condemned, visible again: it may move between the two while we look.
        for path in (self._visible(digest), self._side(digest), self._visible(digest)):
            try:
                stream = path.open("rb")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise from_os_error(error, "reading a blob", self._root) from error
            with stream:
                yield stream
            return
        raise missing(digest, self.url)

    def path(self, digest: str) -> Path | None:
        for path in (self._visible(digest), self._side(digest), self._visible(digest)):
            if _stat(path, digest) is not None:
                return path
        raise missing(digest, self.url)

    def stat(self, digest: str) -> Stat | None:
        return _stat(self._visible(digest), digest)

    def exists(self, digest: str) -> bool:
        return self.stat(digest) is not None

    def verify(self, digest: str) -> None:
        with self.open(digest) as stream, os_errors("reading a blob", self._root):
            found = digest_chunks(read_chunks(stream))
            size = stream.tell()
        if found != digest:
            raise damaged(digest, self.url, found, size)

    def list(self) -> Iterator[Stat]:
        return _walk(self._root)

    # removing

    def condemn(self, digest: str) -> None:
        path = self._visible(digest)
        with os_errors("removing a blob", self._root):
            try:
                # Stamped before it moves: a stamp that is too early would let it be purged
                # while a writer that found it still needs it.
                os.utime(path, ns=(time.time_ns(), time.time_ns()))
                self._rename(path, self._side(digest))
            except FileNotFoundError:
                return
            sync_folder(path.parent)

    def condemned(self) -> Iterator[Stat]:
        return _walk(self._root / "condemned")

    def restore(self, digest: str) -> None:
        side, visible = self._side(digest), self._visible(digest)
        with os_errors("restoring a blob", self._root), suppress(FileNotFoundError):
            if visible.exists():  # written anew meanwhile: the newer copy is the one to keep
                side.unlink()
            else:
                self._rename(side, visible)

    def purge(self, digest: str) -> None:
        with os_errors("removing a blob", self._root):
            self._side(digest).unlink(missing_ok=True)

    # places

    def _visible(self, digest: str) -> Path:
        name = hexdigits(digest)
        return self._root / name[:2] / name[2:]

    def _side(self, digest: str) -> Path:
        name = hexdigits(digest)
        return self._root / "condemned" / name[:2] / name[2:]

    def _sweep(self) -> None:
        """Remove what writers that are dead left behind; of others' files nothing is touched."""
        with suppress(OSError):
            for entry in os.scandir(self._tmp):
                if _is_rubbish(entry.name):
                    with suppress(OSError):
                        Path(entry.path).unlink()


_owners: dict[int, str] = {}


def _nothing_left(digest: str, size: int) -> Begun:
    """What was begun is there already."""
    return Begun(digest, size, 0, lambda: None, lambda: None)


def _owner() -> str:
    """This process, as the first part of a file name; made once per process."""
    pid = os.getpid()
    if pid not in _owners:
        _owners.clear()  # a forked child's dictionary still holds its parent
        _owners[pid] = str(Identity.mine()).replace("/", "~")
    return _owners[pid]


def _is_rubbish(name: str) -> bool:
    """Whether a file in tmp/ belongs to a process that is known to be dead."""
    try:
        return Identity.parse(name.rsplit("~", 1)[0].replace("~", "/")).is_dead() is True
    except ValueError:
        return False


def _stat(path: Path, digest: str) -> Stat | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise from_os_error(error, "looking for a blob", path) from error
    return Stat(digest, found.st_size, found.st_mtime)


def _walk(root: Path) -> Iterator[Stat]:
    """Every blob below `root`; files that do not look like blobs are left out."""
    for folder in _names(root):
        if len(folder) == 2 and _HEX.issuperset(folder):
            for name in _names(root / folder):
                digest = PREFIX + folder + name
                if is_digest(digest) and (found := _stat(root / folder / name, digest)):
                    yield found


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise from_os_error(error, "listing blobs", folder) from error
