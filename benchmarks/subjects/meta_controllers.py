"""Controllers that commit at a given pace: meta_controllers.py URL FIRST COUNT RATE SECONDS.

Each is a thread with a run and its lease, and commits RATE times a second what a controller
commits: the run's step and an event. When a commit was due, and when it was done, are taken by one
clock; one that comes late because the one before it took long counts from when it was due. Prints
{"seconds": […], "events": N} as JSON.
"""

import json
import sys
import threading
import time

from penstock.meta import open_meta
from penstock.records import Run


def control(url, number, rate, begin, end, seconds):
    store, run = open_meta(url), f"run-{number}"
    with store.write() as tx:
        tx.add_run(Run(run, "load", "train", "running", {}))
        lease = tx.take_lease(f"run/{run}", f"elsewhere/boot/{number}/1", 3600)
    due, turn = begin + (number % 97) / 97 / rate, 0
    while due < end and time.time() < end:
        time.sleep(max(0.0, due - time.time()))
        with store.write(lease) as tx:
            tx.change_run(run, step=turn)
            tx.event(f"run/{run}", "run.stepped", {"step": turn})
        seconds.append(time.time() - due)
        due, turn = due + 1 / rate, turn + 1
    store.close()


def main():
    url, first, count, rate, length = sys.argv[1], *map(float, sys.argv[2:])
    begin = time.time() + 8  # until then all have a connection
    end = begin + length
    seconds = [[] for _ in range(int(count))]
    threads = [
        threading.Thread(target=control, args=(url, int(first) + n, rate, begin, end, into))
        for n, into in enumerate(seconds)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [each for into in seconds for each in into]
    print(json.dumps({"seconds": found, "events": len(found)}))


if __name__ == "__main__":
    main()
