"""The frame of the benchmarks, with real tiny commands; the figures themselves are not judged."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]

# A benchmark that never ends, with a child in a session of its own.
ENDLESS = """
import pathlib, sys, types
from benchmarks.frame.command import main
module = types.ModuleType("endless", "Waits.")
def measure(bench):
    grandchild = "import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    process = bench.start([sys.executable, "-c", code], log=pathlib.Path(sys.argv[1]))
    process.wait()
module.measure = measure
sys.exit(main(["endless"], {"endless": module}))
"""


def benchmarks(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`python -m benchmarks`, in a process of its own: it becomes the reaper of what it starts."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def measured(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """A benchmark with this body of `measure(bench)`, run by the frame; its report: out.json."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    script = (
        "import sys, types\n"
        "from benchmarks.frame.command import main\n"
        f"def measure(bench):\n{lines}\n"
        "module = types.ModuleType('tiny', 'What a test measures.')\n"
        "module.measure = measure\n"
        f"sys.exit(main(['tiny', '--check', '--seed', '7', '--json', {str(folder / 'out.json')!r}],"
        " {'tiny': module}))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def report(folder: Path) -> dict:
    return json.loads((folder / "out.json").read_text())


def test_the_list_names_every_benchmark_and_what_it_asks():
    done = benchmarks("--list")
    assert done.returncode == 0, done.stderr
    listed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    files = {
        path.stem for path in (ROOT / "benchmarks").glob("*.py") if not path.name.startswith("_")
    }
    assert set(listed) == files >= {"recovery", "start"}
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    assert [name for name in listed if f"`{name}`" not in text] == []
    assert all(len(about) > 20 for about in listed.values())


def test_a_benchmark_that_does_not_exist_is_refused_and_the_others_are_named():
    done = benchmarks("recovry")
    assert done.returncode == 2
    assert "recovery" in done.stderr


def test_a_report_has_everything_a_reader_needs_and_nothing_of_the_machines_place(tmp_path):
    done = benchmarks("selfcheck", "--quick", "--check", "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    found = report(tmp_path)
    assert {"name", "date", "machine", "versions", "rows", "ratios", "goals"} <= set(found)
    assert {"cores", "memory_gib", "load"} <= set(found["machine"])
    row = {"subject", "metric", "unit", "median", "min", "max", "n"}
    assert [set(each) for each in found["rows"]] == [row, row]
    assert [each["n"] for each in found["rows"]] == [3, 3]
    assert [set(each) for each in found["goals"]] == [{"name", "wanted", "got", "holds"}]
    text = (tmp_path / "out.json").read_text()
    assert str(ROOT) not in text
    assert f'"{platform.node()}"' not in text


def test_as_many_rounds_as_were_asked_for(tmp_path):
    done = benchmarks("selfcheck", "--rounds", "2", "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    assert [each["n"] for each in report(tmp_path)["rows"]] == [2, 2]


def test_subjects_alternate_and_take_turns_in_going_first(tmp_path):
    body = (
        "order = []\n"
        "bench.alternate(3, lambda: order.append('a'), lambda: order.append('b'))\n"
        "bench.note(''.join(order))"
    )
    assert measured(tmp_path, body).returncode == 0
    assert report(tmp_path)["notes"] == ["abbaab"]


def test_a_summary_is_the_median_the_extremes_and_the_count(tmp_path):
    body = (
        "for value in (3.0, 1.0, 8.0): bench.add('a', 'took', 's', value)\n"
        "bench.add('b', 'took', 's', 6.0)\n"
        "bench.ratio('b / a', 'took', over='b', under='a')"
    )
    assert measured(tmp_path, body).returncode == 0
    found = report(tmp_path)
    first = {"subject": "a", "metric": "took", "unit": "s"}
    assert found["rows"][0] == {**first, "median": 3.0, "min": 1.0, "max": 8.0, "n": 3}
    assert found["ratios"] == {"b / a": 2.0}


def test_a_percentile_is_a_sample_and_a_row_of_its_own(tmp_path):
    body = (
        "for value in range(1, 21): bench.add('a', 'took', 's', float(value))\n"
        "bench.note(repr([bench.percentile('a', 'took', share) for share in (0.95, 0.01, 1)]))\n"
        "bench.note(repr(bench.percentile('b', 'took', 0.95)))"
    )
    assert measured(tmp_path, body).returncode == 0
    found = report(tmp_path)
    assert found["notes"] == ["[19.0, 1.0, 20.0]", "nan"]
    assert [row["metric"] for row in found["rows"]] == [
        "took",
        "took, p95",
        "took, p1",
        "took, p100",
    ]


def test_an_hour_of_uneven_steps_raises_no_alarm_and_then_a_stopped_rank_is_found():
    """The simulation that `hang` runs for longer: real pulses and watch, a made-up clock."""
    script = ROOT / "benchmarks" / "subjects" / "hang_hours.py"
    done = subprocess.run(
        [sys.executable, script, "4", "7", "2.0"], capture_output=True, text=True, timeout=60
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["alarms"], found["found"]) == (0, 4), done.stderr
    assert found["steps"] > 10_000 and found["looks"] > 10_000


def test_nobody_is_failed_by_a_goal_without_check(tmp_path):
    script = "import sys; from benchmarks.frame.command import main; from types import ModuleType\n"
    script += "tiny = ModuleType('tiny'); tiny.measure = lambda bench: bench.at_most('x', 1, 2)\n"
    script += "sys.exit(main(['tiny'], {'tiny': tiny}))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"FALLS SHORT" in done.stdout


@pytest.mark.parametrize(("value", "holds"), [(0.3, True), (0.31, False)])
def test_a_goal_that_falls_short_is_said_and_fails_the_check(tmp_path, value, holds):
    done = measured(tmp_path, f"bench.at_most('quick enough', 0.3, {value}, 's')")
    goal = {"name": "quick enough", "wanted": "at most 0.3 s", "got": value, "holds": holds}
    assert report(tmp_path)["goals"] == [goal]
    assert done.returncode == (0 if holds else 1)
    assert ("FALLS SHORT" in done.stdout) is not holds


def test_what_was_not_measured_never_holds(tmp_path):
    body = (
        "bench.at_most('x', 1, bench.median('nobody', 'took'))\n"
        "bench.at_least('y', 1, bench.ratio('r', 'took', over='nobody', under='nobody'))"
    )
    assert measured(tmp_path, body).returncode == 1
    found = report(tmp_path)
    assert [(each["got"], each["holds"]) for each in found["goals"]] == [(None, False)] * 2
    assert found["ratios"] == {"r": None}


@pytest.mark.faults
@pytest.mark.parametrize("ending", ["pass", "raise KeyboardInterrupt", "raise ValueError('oops')"])
def test_no_process_outlives_a_benchmark_however_it_ends(tmp_path, ending):
    """Not even one that a child of a subject left behind in a session of its own."""
    spawn = (
        "import subprocess, sys; "
        "print(subprocess.Popen(['sleep', '300'], start_new_session=True).pid, flush=True)"
    )
    body = (
        "from pathlib import Path\n"
        f"log = Path({str(tmp_path / 'log')!r})\n"
        f"bench.start([sys.executable, '-c', {spawn!r}], log=log).wait(timeout=30)\n"
        f"{ending}"
    )
    measured(tmp_path, body)
    pid = int((tmp_path / "log").read_text())
    assert not psutil.pid_exists(pid)


@pytest.mark.faults
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_benchmark_leaves_no_process(tmp_path, sig):
    log = tmp_path / "log"
    running = subprocess.Popen([sys.executable, "-c", ENDLESS, log], cwd=ROOT)
    try:
        deadline = time.monotonic() + 30
        while not (log.exists() and log.read_text().strip()):
            assert time.monotonic() < deadline, "the benchmark's grandchild did not start"
            assert running.poll() is None
            time.sleep(0.02)
        grandchild = int(log.read_text())
        os.kill(running.pid, sig)
        assert running.wait(timeout=30) == 130
    finally:
        running.kill()
        running.wait()
    assert not psutil.pid_exists(grandchild)
