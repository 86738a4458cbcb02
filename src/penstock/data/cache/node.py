"""The node's cache: shards as files that every process of the node maps.

`FOLDER/v2/<shard's digest>.arrow` holds a shard (see `form.py`). A shard that is Arrow at rest, in
a blob store on a local disk, is mapped where it lies: no second copy.

Who owns what: nobody owns a finished file, it never changes and may be unlinked by anyone (a map of
it stays valid). One process builds it, under the shard's lock, beside its place, and renames it
into it; killed anywhere, it leaves at most a scratch file, which the next builder or evictor
removes. A holder of the lock that gets nowhere for `PATIENCE` delays the others no longer; then
they build too, which is harmless.

A file is checked when it is built (from a blob that was verified) and once per node and boot when
it is opened (`ledger.py`); one that is damaged is built anew. Where the folder cannot be written
(full, read-only) shards are read into memory, and the log says so once.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import xxhash

from penstock.base.errors import Damaged, NotFound
from penstock.base.hashing import PREFIX
from penstock.base.ids import new_id
from penstock.base.log import facts, logger
from penstock.blobs import Blobs
from penstock.blobs.check import damaged
from penstock.data.arrow_files import pieces
from penstock.data.at_rest import decode
from penstock.data.cache import form
from penstock.data.cache.counters import Counters, Tally
from penstock.data.cache.fetch import fetch
from penstock.data.cache.ledger import Verified
from penstock.data.cache.locks import Locks
from penstock.data.cache.near import Near
from penstock.data.cache.opened import Opened, Source, map_file
from penstock.data.cache.space import BUILDING, FORMAT, LIMIT, QUOTAS, Space
from penstock.data.manifest import MAPPABLE, Shard
from penstock.meta.network import file_system, is_network

PATIENCE = 60.0  # seconds in which a builder must have got on
_log = logger("data")
_said: set[tuple[str, str]] = set()


class ShardCache:
    """Opens shards. Safe for threads and processes; holds no file open by itself.

    limit  bytes that the folder may take; default: what the setting `cache_bytes` says, else a
           half of what is free on its disk
    """

    def __init__(self, blobs: Blobs, folder: Path, limit: int | None = None) -> None:
        self._blobs = blobs
        self._folder = folder / FORMAT
        self._verified = Verified(self._folder)
        self._locks = Locks(self._folder)
        self._tally = Tally(self._folder / "counters")
        self._space = Space(self._folder, self._locks, self._tally, limit)
        self._near = Near(self._tally, _write_all)
        self._local: bool | None = None

    # opening

    def open(self, shard: Shard) -> Opened:
        """A shard's rows, in a map where that is possible; fetched when it is not there.

        Raises NotFound and Damaged from the blob store; Damaged when it does not parse. Whoever
        gets it gives it back to `close`.
        """
        self._make_folder()
        if (found := self._there(shard)) is not None:
            self._tally.add(hits=1)
            return found
        built = self._build(shard, wait=True)
        if built is None:
            raise AssertionError("who waits gets it")
        return built

    def close(self, opened: Opened, *, done: bool = False) -> None:
        """Not used by the caller any more.

        done  nobody wants it again soon: it goes first when room is needed
        """
        opened.close_handle()
        if opened.name:
            if done:
                self._space.least_wanted(self._folder / opened.name)
            with suppress(OSError):
                self._locks.let_go(opened.name)

    def bring(self, shard: Shard) -> str:
        """Have a shard on this node and verified, so that `open` need not wait.

        returns  what to give to `release` when it was opened or is not wanted any more: until then
                 no process evicts it; "" when there is nothing to release
        Does nothing where another process is at it already or the folder cannot be written.
        Raises NoRoom when everything in the cache is in use; else as `open` does.
        """
        name = _name(shard)
        self._make_folder()
        with suppress(OSError):
            if self.maps_in_place(shard):
                return ""
            self._locks.hold(name)
            if self._known_here(name):
                return name
            self._locks.let_go(name)
        found = self._there(shard) or self._build(shard, wait=False)
        if found is None:
            return ""
        found.close_handle()
        return found.name  # held since it was opened

    def release(self, name: str) -> None:
        """The end of what `bring` gave."""
        if name:
            with suppress(OSError):
                self._locks.let_go(name)

    def counters(self) -> Counters:
        """Of this process, through this object."""
        return self._tally.mine()

    def stalled(self, nanoseconds: int) -> None:
        """A batch had to wait for a shard."""
        self._tally.add(stalls=1, stalled_ns=nanoseconds)

    def flush(self) -> None:
        """Tell the node's counters now."""
        self._tally.flush()

    @property
    def limit(self) -> int:
        """Bytes that the folder may take."""
        return self._space.limit

    def maps_in_place(self, shard: Shard) -> bool:
        """Whether a blob can be mapped and was found whole: costs a look, where `open` maps it."""
        with suppress(OSError, NotFound):
            if shard.format in MAPPABLE and self._blobs_are_local():
                path = self._blobs.path(shard.digest)
                return path is not None and self._verified.knows(shard.digest, path.stat())
        return False

    def _known_here(self, name: str) -> bool:
        """Whether a cached file is there that was found whole."""
        path = self._folder / name
        with suppress(OSError):
            if self._verified.knows(name, path.stat()):
                self._space.wanted(path)
                return True
        return False

    def _there(self, shard: Shard) -> Opened | None:
        """The shard where nothing needs to be fetched: as a blob in place, or cached."""
        trouble: Damaged | NotFound | None = None
        if shard.format in MAPPABLE and self._blobs_are_local():
            try:
                if (found := self._in_place(shard)) is not None:
                    return found
            except (Damaged, NotFound) as error:
                trouble = error
        cached = self._cached(shard)
        if cached is None and trouble is not None:
            raise trouble
        return cached

    def _in_place(self, shard: Shard) -> Opened | None:
        path = self._blobs.path(shard.digest)
        if path is None:
            return None
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        opened = None
        try:
            opened = self._checked_blob(handle, shard.digest)
        except (OSError, pa.ArrowException):
            return None  # `_build` will say what is wrong with it
        finally:
            if opened is None:
                os.close(handle)
        return opened

    def _checked_blob(self, handle: int, digest: str) -> Opened:
        state = os.fstat(handle)
        if not self._verified.knows(digest, state):
            whole = map_file(handle)
            found = PREFIX + hashlib.sha256(whole).hexdigest()
            if found != digest:
                raise damaged(digest, self._blobs.url, found, whole.size)
            self._verified.add(digest, state)
        return Opened(Source(handle, state.st_size))

    def _cached(self, shard: Shard) -> Opened | None:
        """The cached file as a batch, checked; None when it is not there or not whole."""
        name = _name(shard)
        path = self._folder / name
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # not there, or not for us to read: building it will tell
            return None
        try:
            opened = self._mapped(handle, name)
        except (OSError, pa.ArrowException):  # a folder in its place; another version of Arrow
            opened = None
        if opened is None:
            os.close(handle)
            return None
        self._space.wanted(path)
        with suppress(OSError):
            self._locks.hold(name)
        return opened

    def _mapped(self, handle: int, name: str) -> Opened | None:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode) or state.st_size < form.TRAILER.size:
            return None
        if not self._verified.knows(name, state):
            if not form.is_whole(map_file(handle)):
                _log.warning("a cached shard is damaged; building it anew", extra=facts(file=name))
                return None
            self._verified.add(name, state)
        length = state.st_size - form.TRAILER.size
        return Opened(Source(handle, length), name=name, bytes=state.st_size)

    def _blobs_are_local(self) -> bool:
        """Whether blobs may be mapped in place: over a network a lost file would kill us."""
        if self._local is None:
            self._local = True
            with suppress(OSError):
                mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
                where = Path(self._blobs.url.removeprefix("file://")).resolve()
                self._local = not is_network(file_system(where, mounts)[0])
        return self._local

    # building

    def _build(self, shard: Shard, *, wait: bool) -> Opened | None:
        name = _name(shard)
        try:
            with self._locks.building(
                name, wait=wait, moved=lambda: self._written(name), patience=PATIENCE
            ) as alone:
                if not alone and not wait:
                    return None
                if (found := self._cached(shard)) is not None:
                    self._tally.add(hits=1)
                    return found  # another process was faster
                self._fetch_into_place(shard, name)
                found = self._cached(shard)
                if found is not None:
                    return found
                why = "what was written cannot be read"
        except OSError as error:
            why = error.strerror or str(error)
        except NoRoom as full:
            if not wait:
                raise
            why = str(full)
        self._say_degraded(why)
        return self._in_memory(shard) if wait else None

    def _fetch_into_place(self, shard: Shard, name: str) -> None:
        """Write beside, rename into place. Not flushed: after a power cut it is checked again."""
        for stale in (self._folder / BUILDING).glob(f"{name}.*.tmp"):
            self._remove(stale)  # its builder is dead, or so slow that nobody waits for it
        scratch = self._folder / BUILDING / f"{name}.{new_id()}.tmp"
        try:
            if shard.format in MAPPABLE:
                self._copy(shard, scratch)
            else:
                self._convert(shard, scratch)
            state = scratch.stat()
            scratch.replace(self._folder / name)
            self._verified.add(name, state)
        finally:
            if scratch.exists():
                self._remove(scratch)
        self._tally.add(misses=1)

    def _copy(self, shard: Shard, scratch: Path) -> None:
        """An Arrow shard, byte for byte, and the trailer."""
        handle = self._new_file(scratch, shard.bytes + form.TRAILER.size)
        try:
            hashed = self._near.copy(shard, _name(shard), scratch.name, handle)
            if hashed is None:
                hashed = self._from_store(shard, handle)
            _write_all(handle, form.trailer(shard.bytes, hashed), shard.bytes)
        finally:
            os.close(handle)

    def _from_store(self, shard: Shard, handle: int) -> xxhash.xxh3_128:
        hashed = xxhash.xxh3_128()

        def give(at: int, piece: bytes) -> None:
            self._tally.count(fetched=len(piece))
            hashed.update(piece)
            _write_all(handle, piece, at)

        fetch(self._blobs, shard.digest, shard.bytes, give)
        return hashed

    def _convert(self, shard: Shard, scratch: Path) -> None:
        """A Parquet shard as Arrow, laid out, and the trailer."""
        self._refuse_in_vain(shard)
        if self._near.laid_out(
            _name(shard),
            lambda size: self._new_file(scratch, size),
            lambda handle: self._drop(handle, scratch),
        ):
            return
        parts = pieces(form.laid_out(self._decoded(shard)))
        length = sum(map(len, parts))
        hashed = xxhash.xxh3_128()
        handle = self._new_file(scratch, length + form.TRAILER.size)
        try:
            at = 0
            for part in parts:
                hashed.update(part)
                _write_all(handle, part, at)
                at += len(part)
            _write_all(handle, form.trailer(length, hashed), at)
        finally:
            os.close(handle)

    def _refuse_in_vain(self, shard: Shard) -> None:
        """Where not even the compressed bytes find room, nothing needs to be fetched."""
        if not self._space.reserve(shard.bytes):
            raise NoRoom(f"{shard.bytes} bytes do not fit into {self._space.limit}")
        self._space.give_back(shard.bytes)

    def _new_file(self, path: Path, size: int) -> int:
        """A file with room for its bytes, so that a full disk shows now. Raises OSError."""
        if not self._space.reserve(size):
            raise NoRoom(f"{size} bytes do not fit into {self._space.limit}")
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError:
            self._space.give_back(size)
            raise
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError:
            os.close(handle)
            self._space.give_back(size)
            path.unlink(missing_ok=True)
            raise
        return handle

    def _drop(self, handle: int, scratch: Path) -> None:
        os.close(handle)
        self._remove(scratch)

    def _remove(self, scratch: Path) -> None:
        with suppress(OSError):
            size = scratch.stat().st_size
            scratch.unlink()
            self._space.give_back(size)

    def _decoded(self, shard: Shard) -> pa.Table:
        data = bytearray(shard.bytes)

        def give(at: int, piece: bytes) -> None:
            self._tally.count(fetched=len(piece))
            data[at : at + len(piece)] = piece

        fetch(self._blobs, shard.digest, shard.bytes, give)
        return decode(pa.py_buffer(data), shard.format, shard.digest)

    def _in_memory(self, shard: Shard) -> Opened:
        batch = form.laid_out(self._decoded(shard))
        self._tally.add(misses=1)
        return Opened(batch=batch, bytes=batch.nbytes)

    def _written(self, name: str) -> object:
        """What changes while somebody builds a file."""
        found = []
        for scratch in (self._folder / BUILDING).glob(f"{name}.*.tmp"):
            with suppress(OSError):
                found.append((scratch.name, scratch.stat().st_mtime_ns))
        return found

    # around it

    def _make_folder(self) -> None:
        if not self._folder.is_dir():
            with suppress(OSError):
                (self._folder / BUILDING).mkdir(parents=True, exist_ok=True)
                self._say_others(each.name for each in os.scandir(self._folder.parent))

    def _say_others(self, names: Iterable[str]) -> None:
        others = sorted(set(names) - {FORMAT, LIMIT, QUOTAS})
        if others:
            _log.warning(
                "the cache of another version of Penstock lies beside ours and is left alone; "
                "remove it when that version is not used any more",
                extra=facts(folder=str(self._folder.parent), files=len(others), first=others[0]),
            )

    def _say_degraded(self, why: str) -> None:
        """Once per folder and reason: every shard of an epoch would say the same."""
        if (str(self._folder), why) not in _said:
            _said.add((str(self._folder), why))
            _log.warning(
                "shards cannot be cached; reading into memory instead",
                extra=facts(folder=str(self._folder), why=why),
            )


class NoRoom(Exception):
    """The quota has no room for a file: what is there is in use."""


def _name(shard: Shard) -> str:
    return f"{shard.digest.removeprefix(PREFIX)}.arrow"


def _write_all(handle: int, data: bytes | memoryview, at: int) -> None:
    view = memoryview(data).cast("B")
    while len(view):
        done = os.pwrite(handle, view, at)
        view, at = view[done:], at + done
