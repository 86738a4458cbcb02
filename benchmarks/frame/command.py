"""The command line: find the benchmarks, run them, report, and clear up whatever happens."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import benchmarks
from benchmarks.frame import environments, machine, report
from benchmarks.frame.bench import Bench

_NOT_IN_ALL = {"selfcheck"}


def find() -> dict[str, ModuleType]:
    """Every module beside the frame that has `measure`."""
    names = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.ispkg]
    modules = {
        name: importlib.import_module(f"benchmarks.{name}")
        for name in sorted(names)
        if not name.startswith("_")
    }
    return {name: module for name, module in modules.items() if hasattr(module, "measure")}


def main(
    arguments: Sequence[str] | None = None, found: Mapping[str, ModuleType] | None = None
) -> int:
    """returns  0; 1 with --check when a goal falls short; 2 for a bad call; 130 after Ctrl-C"""
    found = find() if found is None else found
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        for name, module in found.items():
            print(f"{name:12} {_about(module)}")
        return 0
    if options.make_environments and options.name is None:
        options.name = "all"
    names = [n for n in found if n not in _NOT_IN_ALL] if options.name == "all" else [options.name]
    if options.name is None or any(name not in found for name in names):
        parser.error(f"give the name of a benchmark: {', '.join(found)}, or all")
    if options.make_environments:
        for name, packages in _environments({each: found[each] for each in names}).items():
            environments.make(name, packages, lambda line: print(line, file=sys.stderr))
        return 0
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds takes 1 or more")
    for sig in (signal.SIGINT, signal.SIGTERM):  # also where a shell had it ignored: clear up
        signal.signal(sig, signal.default_int_handler)
    try:
        reports = [
            run(name, found[name], options.quick, options.seed, options.rounds) for name in names
        ]
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if options.json:
        report.write(reports, options.json)
    fell_short = any(not goal["holds"] for each in reports for goal in each["goals"])
    return 1 if options.check and fell_short else 0


def run(
    name: str, module: ModuleType, quick: bool, seed: int | None, rounds: int | None = None
) -> report.Report:
    """Measure, print the table, return the report. No process is left, no scratch folder either."""
    began = time.monotonic()
    if seed is None:
        seed = int(os.environ.get("PENSTOCK_CHAOS_SEED") or time.time_ns() % 1_000_000)
    peers: dict[str, list[str]] = getattr(module, "PEERS", {})
    facts = {"name": name, "quick": quick, "seed": seed, "machine": machine.machine()}
    facts["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(
        prefix=f"penstock-bench-{name}-", ignore_cleanup_errors=True
    ) as scratch:
        bench = Bench(name, quick, seed, Path(scratch), peers, asked=rounds)
        bench.say(f"{name}: {_about(module)} (seed {seed})")
        try:
            facts["versions"] = machine.versions() | _peer_versions(bench)
            module.measure(bench)
        finally:
            bench.children.clear()
    made: report.Report = {**facts, **bench.results(), "took": time.monotonic() - began}
    report.show(made)
    return made


def _peer_versions(bench: Bench) -> dict[str, str]:
    return {
        f"{peer}'s {package}": version
        for peer, packages in bench.peers.items()
        for package, version in environments.versions(bench.python(peer), packages).items()
    }


def _environments(found: Mapping[str, ModuleType]) -> dict[str, list[str]]:
    """All peers' environments. Two benchmarks that name the same one must want the same of it."""
    wanted: dict[str, list[str]] = {}
    for name, module in found.items():
        for peer, packages in getattr(module, "PEERS", {}).items():
            if wanted.setdefault(peer, packages) != packages:
                raise ValueError(f"benchmark {name} wants another environment {peer} than others")
    return wanted


def _about(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().partition("\n")[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Penstock beside its peers, in alternation."
    )
    add: Any = parser.add_argument
    add("name", nargs="?", help="a benchmark, or all")
    add("--list", action="store_true", help="the benchmarks, a line each")
    add("--quick", action="store_true", help="fewer rounds")
    add("--rounds", type=int, metavar="N", help="so many of the same length instead")
    add("--json", type=Path, metavar="FILE", help="write the report there")
    add("--check", action="store_true", help="exit with 1 when a goal falls short")
    add("--seed", type=int, help="of random choices; default: PENSTOCK_CHAOS_SEED, or a new one")
    add(
        "--make-environments",
        action="store_true",
        help="make the environments of its peers, or of all, and end",
    )
    return parser
