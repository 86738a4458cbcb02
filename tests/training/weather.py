"""One training under every fault there is: what each does, and who goes on with the run then.

All are real: signals, bytes changed in the object store, a file system without room, connections
that are refused, and a clock that jumps (of the run's processes alone, by a preloaded library).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.blobs.conftest import Proxy
from tests.training.conftest import Project

from penstock.jobs import control

LEASE = 2.0  # seconds, of the runs in this weather
KILLED = ("rank", "agent", "image", "sidecar", "controller")
STOPPED = ("rank", "agent", "controller")
GOES_ON = (4, 7, 9, 10)  # a script's exit codes after which the same script, run again, goes on

# As libfaketime does it, for the one clock that may jump: seconds to add stand in a file.
_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);
static volatile int64_t *offset;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("JUMPING_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    real = dlsym(RTLD_NEXT, "clock_gettime");
    if (fd >= 0) {
        void *page = mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
        if (page != MAP_FAILED) offset = page;
    }
}

int clock_gettime(clockid_t which, struct timespec *out) {
    if (!real) begin();
    int status = real(which, out);
    if (!status && offset && which == CLOCK_REALTIME) out->tv_sec += *offset;
    return status;
}

int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


class JumpingClock:
    """Of every process that is started with `environment`."""

    def __init__(self, folder: Path) -> None:
        source, library = folder / "clock.c", folder / "clock.so"
        source.write_text(_CLOCK)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        self._offset = folder / "offset"
        self._offset.write_bytes(struct.pack("<q", 0))
        self.environment = {"LD_PRELOAD": str(library), "JUMPING_CLOCK": str(self._offset)}

    def jump_to(self, seconds: int) -> None:
        """So far from the truth, at once and in all of them."""
        with self._offset.open("r+b") as file:
            file.write(struct.pack("<q", seconds))


class Weather:
    """`struck` tells what happened so far; `scripts` how many it took.

    bucket  of the project's blob store, behind the proxy
    """

    def __init__(
        self,
        project: Project,
        dice: random.Random,
        clock: JumpingClock,
        proxy: Proxy,
        bucket: str,
        refuses: float,
    ) -> None:
        self.project, self.dice, self._clock = project, dice, clock
        self._proxy, self._bucket, self._refuses = proxy, bucket, refuses
        self.struck: list[str] = []
        self.scripts = 0
        self.script = self._start()
        self.faults: dict[str, Callable[[], None]] = {
            **{f"kill {role}": lambda role=role: self._kill(role) for role in KILLED},
            **{f"stop {role}": lambda role=role: self._stop(role) for role in STOPPED},
            "kill all ranks": lambda: self._kill("rank", all_of_them=True),
            "kill everything": self._kill_everything,
            "kill script": self._kill_script,
            "flip a bit": lambda: self._damage(_flipped),
            "truncate": lambda: self._damage(lambda data, dice: data[: dice.randrange(len(data))]),
            "lose a chunk": lambda: self._damage(None),
            "fill the disk": self._fill_the_disk,
            "refuse connections": self._refuse,
            "jump": self._jump,
        }

    def strike(self, fault: str) -> None:
        print(f"{time.strftime('%X')} step {self.project.committed('run')}: {fault}", flush=True)
        self.faults[fault]()
        self.struck.append(fault)

    def tend(self, seconds: float = 120) -> None:
        """Start the script again whenever it ended, until a newer checkpoint, or the end."""
        seen = self.project.committed("run")

        def moved() -> bool:
            self._go_on()
            return self.is_over() or self.project.committed("run") > seen

        try:
            self.project.until("progress", moved, seconds)
        except AssertionError:
            self._tell()
            raise

    def _tell(self) -> None:
        """What there is to know of a run that does not get on."""
        run = self.project.newest("run")
        print("RUN", run, "SCRIPT ENDED", self._has_ended())
        if run is None:
            return
        with self.project.stores() as stores:
            print("PROCESSES", control.pids(stores, run.id))
            with stores.meta.read() as db:
                print("LEASE", db.find_lease(f"run/{run.id}"), "NOW", db.now())
                for event in db.events(subject=f"run/{run.id}", limit=100_000)[-25:]:
                    print("EVENT", event)
        logs = self.project.home / "runs" / run.id / "logs"
        for log in sorted(logs.iterdir()):
            print("LOG", log.name, log.read_text(errors="replace")[-1500:])
        for segment in (logs.parent / "signals").glob("*.seg"):
            segment.unlink()  # where the disk is full, stacks would have no room
        for pid in self._left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGABRT)  # by PYTHONFAULTHANDLER: its stacks
        time.sleep(1)
        for log in sorted(logs.iterdir()):
            if "most recent call first" in (text := log.read_text(errors="replace")):
                print("STACKS", log.name, text[-6000:])
        print("SCRIPT SAID", self.script.communicate()[0][-6000:])

    def _left(self) -> list[int]:
        """The script, and whoever else has this home in its command line."""
        found = [self.script.pid]
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(self.project.home).encode() in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def is_over(self) -> bool:
        run = self.project.newest("run")
        return run is not None and run.state == "finished"

    def _start(self) -> subprocess.Popen[str]:
        self.scripts += 1
        return self.project.start("run", "2")

    def _has_ended(self) -> bool:
        """And what the script says is read meanwhile: one whose pipe is full would stand still."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.script.communicate(timeout=0.01)
        return self.script.poll() is not None

    def _go_on(self) -> None:
        if not self._has_ended() or self.is_over():
            return
        out, _ = self.script.communicate()
        code = self.script.returncode
        assert code in GOES_ON or code == -signal.SIGKILL, f"exit code {code}: {out}"
        self.script = self._start()

    # -- faults ---------------------------------------------------------------------------------

    def _some(self, role: str) -> list[int]:
        """Live processes of a role; none where the run is over, or starts anew just now."""
        deadline = time.monotonic() + 20
        while not (found := self.project.pids("run", role)) and time.monotonic() < deadline:
            self._go_on()
            if self.is_over():
                break
            time.sleep(0.02)
        return found

    def _kill(self, role: str, all_of_them: bool = False) -> None:
        if found := self._some(role):
            for pid in found if all_of_them else [self.dice.choice(found)]:
                self.project.signal(pid, signal.SIGKILL)

    def _kill_everything(self) -> None:
        found = self.project.pids("run", *KILLED)
        for number in (signal.SIGSTOP, signal.SIGKILL):  # at one moment: none may help another
            for pid in found:
                self.project.signal(pid, number)

    def _kill_script(self) -> None:
        self.script.kill()
        self.script.wait()

    def _stop(self, role: str) -> None:
        """For longer than the lease."""
        if not (found := self._some(role)):
            return
        pid = self.dice.choice(found)
        self.project.signal(pid, signal.SIGSTOP)
        time.sleep(LEASE * 1.5)
        self.project.signal(pid, signal.SIGCONT)

    def _damage(self, change: Callable[[bytes, random.Random], bytes] | None) -> None:
        """One part of the newest checkpoint, in the store itself; then all that is in memory is
        taken away, so that it would be read."""
        from obstore.store import S3Store

        with self.project.stores() as stores, stores.meta.read() as db:
            rows = db.checkpoints(self.project.newest("run").id)
        if not rows:
            return
        manifest = json.loads(bytes(stores.blobs.get(rows[0].digest)))
        digest = self.dice.choice(manifest["parts"])["blob"].removeprefix("sha256:")
        key = f"p/{digest[:2]}/{digest[2:]}"
        options = {"allow_http": True}
        store = S3Store(self._bucket, endpoint=self._proxy.upstream, client_options=options)
        with contextlib.suppress(FileNotFoundError):  # gone meanwhile, for a newer one
            data = bytes(store.get(key).bytes())
            if change is None:
                store.delete(key)
            else:
                store.put(key, change(data, self.dice))
        self._kill("agent")

    def _fill_the_disk(self) -> None:
        """Of the home, to the last page; a while later somebody makes room."""
        ballast = self.project.home / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.script.wait(self.dice.uniform(0, 5))
        ballast.unlink()

    def _refuse(self) -> None:
        self._proxy.stop()
        time.sleep(self._refuses)
        self._proxy.start()

    def _jump(self) -> None:
        self._clock.jump_to(self.dice.choice([-86400, -60, -5, 0, 5, 60, 86400]))


def _flipped(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]


def left_behind(project: Project, runtime: Path) -> list[str]:
    """Files that only a process that lives may have: drafts, buffers, sockets, locks."""
    drafts = [
        str(path)
        for path in project.home.rglob("*")
        if path.suffix in (".tmp", ".new", ".part") or path.parent.name == "scratch"
    ]
    shared = [str(path) for path in Path("/dev/shm").glob("*penstock*")]
    kept = [str(path) for path in runtime.glob(f"penstock-{os.getuid()}/*")]
    return drafts + shared + kept
