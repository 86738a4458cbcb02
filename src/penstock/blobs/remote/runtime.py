"""The event loop that a process's requests run on, and obstore itself; anew after a fork.

Each process that talks to an object store owns one daemon thread, which runs an asyncio loop; it
is started by the first request and stopped at exit, with what is still under way. obstore keeps
its sockets on threads of its own, which do not survive a fork: its calls would hang in the child
for ever. So a child whose parent had used obstore loads a second copy of the library (from an
anonymous file, because the linker knows a library by its inode), whose state is fresh. That takes
30 ms and 15 MB, and no code above sees a difference.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import importlib.machinery
import importlib.util
import os
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from penstock.base.errors import MissingExtra, Unavailable

T = TypeVar("T")
_NAME = "obstore._obstore"
_SETTLE = 0.05  # seconds


class Runtime:
    """One process's loop and library. Owns the thread; ends with the process."""

    def __init__(self, stale: bool) -> None:
        self.obstore = _private_copy() if stale else _library()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="penstock-blobs", daemon=True
        )
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run on the loop; the future may be cancelled."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the loop and wait. An interrupt of the waiting thread cancels the work."""
        future = self.start(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Cancel what is under way, then end the thread."""
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        # A thread of obstore that lets go of an answer while the interpreter ends aborts the
        # process. It does so microseconds after the answer; nothing tells when.
        time.sleep(_SETTLE)


_lock = threading.Lock()
_current: Runtime | None = None
_inherited: list[Runtime] = []  # kept, so that a child never tidies up what is its parent's


def runtime() -> Runtime:
    """This process's runtime, started by the first caller. Raises MissingExtra, Unavailable."""
    global _current
    found = _current
    if found is not None:
        return found
    with _lock:
        if _current is None:
            _current = Runtime(stale=bool(_inherited))
        return _current


def _forget() -> None:
    """In a forked child: the loop's thread and obstore's stayed with the parent."""
    global _current, _lock
    _lock = threading.Lock()
    if _current is not None:
        _inherited.append(_current)
        _current = None


def _stop() -> None:
    if _current is not None:
        _current.stop()


os.register_at_fork(after_in_child=_forget)
atexit.register(_stop)


async def _cancel_all() -> None:
    mine = asyncio.current_task()
    under_way = [task for task in asyncio.all_tasks() if task is not mine]
    for task in under_way:
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)


def _library() -> Any:
    try:
        importlib.import_module("obstore")
        return importlib.import_module(_NAME)
    except ImportError as error:
        raise MissingExtra(
            f"object stores need the package obstore, which cannot be imported: {error}",
            "pip install 'obstore>=0.12.1,<0.13'",
            package="obstore",
        ) from None


def _private_copy() -> Any:
    source = _library().__file__
    try:
        handle = os.memfd_create("obstore")  # stays open: the library is mapped from it
        with open(source, "rb") as original:  # noqa: PTH123 - a descriptor is needed
            while os.sendfile(handle, original.fileno(), None, 1 << 24):
                pass
        path = f"/proc/self/fd/{handle}"
        loader = importlib.machinery.ExtensionFileLoader(_NAME, path)
        spec = importlib.util.spec_from_file_location(_NAME, path, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except (OSError, ImportError, AttributeError) as error:
        raise Unavailable(
            f"this process was forked from one that used an object store: {error}",
            "Start it with multiprocessing's `spawn`, or open the store only in the child.",
        ) from error
    return module
