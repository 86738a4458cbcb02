"""What the facts of a cluster mean: findings with their remedies. Pure.

Facts are those of `jobs.backends.ray.examining` and `jobs.probing.here`; nodes are named by
`names_of`, and each finding says on which one it was made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from penstock.base.units import show_bytes
from penstock.home.views import Check

Facts = Mapping[str, Any]
State = Literal["ok", "warn", "fail"]
Judged = tuple[State, str, str]  # state, what was found, what to do
GIB = 1 << 30
APART = 1.0  # seconds that a clock may be off before it is said
FAR_APART = 60.0  # seconds from which it does not do: signatures and certificates have times
SLOW_LINE = 100e6 / 8  # bytes a second between nodes below which it is said
SLOW_NAME = 1.0  # seconds for the name of an address above which it is said
FEW_FILES = 4096  # open files of a process
_ANY_PORT = "Let the nodes reach each other, and this machine reach them, on any port (firewall)."


def names_of(nodes: Sequence[Facts]) -> dict[str, str]:
    """id -> name: the address, with the beginning of the id where several nodes have the same.

    >>> names_of([{"id": "abcdef123", "address": "a"}, {"id": "bcd", "address": "b"}])
    {'abcdef123': 'a', 'bcd': 'b'}
    """
    shared = Counter(node["address"] for node in nodes)
    return {
        node["id"]: node["address"] + (f" {node['id'][:6]}" if shared[node["address"]] > 1 else "")
        for node in nodes
    }


def cluster(report: Facts, here: Facts) -> Iterator[Check]:
    """Every finding about the nodes and what is between them.

    report  of `examining.examine`
    here    "versions" of this machine, "apart": seconds that it is ahead of the database, or None
    """
    nodes = report["nodes"]
    names = names_of(nodes)
    if not any(node["cpus"] > 0 for node in nodes):
        yield Check(
            "nodes", "fail", "no node has a CPU for ranks", "Start some: ray start --address=…"
        )
    for node in sorted(nodes, key=lambda each: names[each["id"]]):
        for found in one(node, here):
            yield at(found, names[node["id"]])
    yield from between(report, names)


def at(check: Check, node: str) -> Check:
    """The same finding, on a node."""
    return Check(check.name, check.state, check.found, check.fix, check.facts, node)


# -- one node ---------------------------------------------------------------------------------


def one(node: Facts, here: Facts) -> Iterator[Check]:
    """Of a single node, without its name."""
    if node["draining"] is not None:
        text = f"is taken away in {node['draining']:.0f} s, and was not looked at"
        yield Check("node", "warn", text, "Nothing new is placed there; wait for another node.")
        return
    if "versions" in node:
        yield from _versions(node["versions"], here["versions"])
    if "clock" in node:
        yield _clock(node["clock"], here.get("apart"))
    if "here" in node:
        yield _reach(node["here"])
    if node.get("error"):
        error = node["error"]
        fix = error["fix"] or "Is Penstock installed there as here, and the machine well?"
        yield Check("node", "fail", error["what"], fix, {"code": error["code"]})
        return
    facts = node.get("facts")
    if facts is not None:
        yield from machine(facts, node["cpus"], node["gpus"])


def _versions(there: Facts, here: Facts) -> Iterator[Check]:
    same = "Install the same on all nodes of the cluster, and here."
    wrong = [
        f"{name} is {_shown(there[name], short)} there and {_shown(here[name], short)} here"
        for name, short in (("python", True), ("penstock", False), ("ray", False))
        if _shown(there[name], short) != _shown(here[name], short)
    ]
    text = ", ".join(f"{name} {version or 'not installed'}" for name, version in there.items())
    if wrong:
        yield Check("versions", "fail", "; ".join(wrong), same, dict(there))
    elif not there["torch"]:
        fix = 'pip install "penstock[torch]" there, to train'
        yield Check("versions", "fail", text, fix, dict(there))
    elif here["torch"] and _public(there["torch"]) != _public(here["torch"]):
        found = f"torch is {there['torch']} there and {here['torch']} here"
        yield Check("versions", "warn", found, same, dict(there))
    else:
        yield Check("versions", "ok", text, facts=dict(there))


def _shown(version: str, short: bool) -> str:
    """short: of Python the first two numbers count."""
    return ".".join(version.split(".")[:2]) if short else version or "not installed"


def _public(version: str) -> str:
    """Without what it was built for: 2.13.0 of 2.13.0+cu128."""
    return version.partition("+")[0]


def _clock(clock: Facts, apart: float | None) -> Check:
    """Beside this machine's, and beside the database's, where its own is known."""
    offset, unsure = clock["offset"], clock["uncertainty"]
    facts = {"offset": offset, "uncertainty": unsure}
    text = f"{_signed(offset)} s from this machine's (± {unsure:.3f})"
    if apart is not None:
        facts["from_database"] = offset + apart
        text += f", {_signed(offset + apart)} s from the database's"
    return Check("clock", *_how_far(offset, unsure, text), facts)


def clock_of_database(offset: float, unsure: float) -> Check:
    """offset: seconds that it is ahead of this machine's, as sure as `unsure` says."""
    text = f"the database's is {_signed(offset)} s from this machine's (± {unsure:.3f})"
    return Check("clock", *_how_far(offset, unsure, text), {"offset": offset})


def _how_far(offset: float, unsure: float, text: str) -> tuple[State, str, str]:
    """(state, text, fix) of a clock. What the exchange leaves open counts for it."""
    off = abs(offset) - unsure
    fix = "Synchronise the clocks of all machines (chrony, systemd-timesyncd)."
    if off > FAR_APART:
        text += ": signed requests to an object store are refused, certificates may not hold"
        return "fail", text, fix
    return ("warn", text, fix) if off > APART else ("ok", text, "")


def _signed(seconds: float) -> str:
    return f"{seconds:+.3f}"


def _reach(answer: Facts) -> Check:
    if "error" in answer:
        text = f"this machine does not reach a port of it: {answer['error']}"
        return Check("from here", "fail", text, _ANY_PORT, dict(answer))
    text = f"a port of it is reached, {answer['seconds'] * 1e3:.1f} ms there and back"
    return Check("from here", "ok", text, facts=dict(answer))


def machine(facts: Facts, cpus: float, gpus: float) -> Iterator[Check]:
    """Of a machine that is to run ranks.

    cpus, gpus  that the cluster gives away there
    """
    looks: tuple[tuple[str, str, Callable[[Facts], Judged]], ...] = (
        ("network", "network", _network),
        ("names", "names", _names),
        ("node home", "home", _home),
        ("shared memory", "shm", _shm),
        ("memory", "memory", lambda part: _memory(part, cpus)),
        ("cores", "cores", lambda part: _cores(part, cpus)),
        ("gpus", "gpus", lambda part: _gpus(part, gpus)),
        ("blobs", "blobs", _blobs),
    )
    for name, key, look in looks:
        part = facts[key]
        if part is None:
            continue
        if "error" in part:
            fix = part["fix"] or "Look at that machine."
            yield Check(name, "fail", part["error"], fix, dict(part))
        else:
            state, text, fix = look(part)
            yield Check(name, state, text, fix, dict(part))
    if 0 <= facts["files"] < FEW_FILES:
        text = f"{facts['files']} open files for each process"
        yield Check("open files", "warn", text, f"Raise it: ulimit -n {16 * FEW_FILES}")


def _network(part: Facts) -> Judged:
    text = f"ranks use {part['address']} on {part['interface']}"
    if part.get("mtu"):
        text += f" (MTU {part['mtu']}" + (f", {part['mbit']} Mbit/s)" if part["mbit"] else ")")
    if part["missing"]:
        text += f"; no interface {', '.join(part['missing'])}, as this environment names for ranks"
        fix = f"GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME: there are {', '.join(part['there'])}."
        return "fail", text, fix
    if not part.get("up", True):
        return "fail", f"{text}, which is down", "Bring the interface up."
    return "ok", text, ""


def _names(part: Facts) -> Judged:
    text = f"the name of an address is looked up in {part['seconds']:.1f} s"
    if part["seconds"] < SLOW_NAME:
        return "ok", text, ""
    text += ": ranks that meet ask for it, so each gang begins as much later"
    fix = "Name a server that answers in /etc/resolv.conf, or put the nodes' addresses into "
    return "warn", text, f"{fix}/etc/hosts, also as ::ffff:{part['address']}."


def _home(part: Facts) -> Judged:
    text = f"{part['path']} on {part['kind'] or 'an unknown file system'}"
    text += f", {show_bytes(part['free'])} free"
    other = "Set PENSTOCK_NODE_HOME in the environment of Ray's processes there"
    if not part["writable"]:
        return "fail", f"{text}: it cannot be written", f"Make it writable, or: {other}."
    if part["free"] < GIB // 4:
        return "fail", text, f"Free some there, or: {other}."
    if part["network"]:
        return "warn", f"{text}: a disk that machines share is slow for it", f"{other}: local disk."
    if part["kind"] in ("tmpfs", "ramfs"):
        return "warn", f"{text}: shards take memory there", f"{other}: a folder on a disk."
    if part["free"] < 2 * GIB:
        return "warn", text, "Free some: shards, snapshots and checkpoints lie there."
    return "ok", text, ""


def _shm(part: Facts) -> Judged:
    text = f"{show_bytes(part['free'])} of {show_bytes(part['total'])} free in /dev/shm"
    if part["free"] < GIB // 4:
        fix = "Enlarge it (containers: --shm-size=1g; Kubernetes: an emptyDir with medium: Memory)."
        return "warn", text, fix
    return "ok", text, ""


def _memory(part: Facts, cpus: float) -> Judged:
    text = f"{show_bytes(part['free'])} of {show_bytes(part['limit'])} free ({part['source']})"
    needs = max(1.0, cpus) * 0.3 * GIB
    if part["free"] < GIB or (part["free"] < needs and cpus > 0):
        fix = "Raise the limit, or give Ray fewer CPUs there: a rank that imports torch needs "
        return "warn", text, f"{fix}0.3 GiB."
    return "ok", text, ""


def _cores(part: Facts, cpus: float) -> Judged:
    text = f"{cpus:g} for ranks, {part['usable']:g} that a process may use there"
    if part["quota"] is not None:
        text += f" ({part['count']}, of which its cgroup allows {part['quota']:g})"
    if cpus > part["usable"]:
        return "warn", text, f"ray start --num-cpus={int(part['usable'])}: ranks fight for them."
    return "ok", text, ""


def _gpus(part: Facts, gpus: float) -> Judged:
    names = part["names"]
    if not names and not gpus:
        return "ok", "none", ""
    text = f"{gpus:g} for ranks; the driver sees {', '.join(names) or 'none'}"
    if part["torch_for_cpus"]:
        fix = "Install a build for CUDA there: https://pytorch.org/get-started/locally."
        return "warn", f"{text}; torch {part['torch_for_cpus']} sees none of it", fix
    if gpus != len(names):
        return "warn", text, f"ray start --num-gpus={len(names)}, or look at the driver there."
    return "ok", text, ""


def _blobs(part: Facts) -> Judged:
    text = f"{part['url']} answers in {part['seconds'] * 1e3:.0f} ms, takes the node's credentials"
    if part["conditional"] is not None:
        if part["conditional"]:
            return "ok", f"{text}, honours conditional writes", ""
        fix = "Nothing is lost, but what exists already is written again; see docs/blobs.md."
        return "warn", f"{text}, but ignores conditional writes", fix
    if part["shared"] is None:
        fix = "It is made by the first run; look again then, or use an object store."
        return "warn", f"{part['url']}: whether it is the same disk cannot be told yet", fix
    if not part["shared"]:
        fix = "Mount the same disk there, or use an object store (docs/blobs.md)."
        return "fail", f"{part['url']} is not the folder that this machine has by that name", fix
    return "ok", f"{part['url']} is the same disk as here", ""


# -- between nodes ----------------------------------------------------------------------------


def between(report: Facts, names: Mapping[str, str]) -> Iterator[Check]:
    """Who does not reach whom, how fast, and what differs from node to node."""
    nodes = [node for node in report["nodes"] if "reach" in node]
    for node in nodes:
        for other, answer in sorted(node["reach"].items()):
            if "error" in answer:
                text = f"does not reach a port of {names[other]}: {answer['error']}"
                yield Check("others", "fail", text, _ANY_PORT, dict(answer), names[node["id"]])
    yield from _reached(nodes)
    for line in report["lines"]:
        if "error" in line:
            text = f"no bytes get to {names[line['to']]}: {line['error']}"
            yield Check("bandwidth", "fail", text, _ANY_PORT, dict(line), names[line["from"]])
    yield from _bandwidth([each for each in report["lines"] if "error" not in each], names)
    yield from _different(report["nodes"], names)
    yield from _loopback(report["nodes"], names)


def _reached(nodes: Iterable[Facts]) -> Iterator[Check]:
    took = [
        answer["seconds"]
        for node in nodes
        for answer in node["reach"].values()
        if "seconds" in answer
    ]
    if took:
        text = f"{len(took)} ways tried and open, {max(took) * 1e3:.1f} ms there and back at most"
        yield Check("between nodes", "ok", text, facts={"ways": len(took), "most": max(took)})


def _bandwidth(lines: Sequence[Facts], names: Mapping[str, str]) -> Iterator[Check]:
    speeds = {
        (line["from"], line["to"]): line["bytes"] / line["seconds"]
        for line in lines
        if line["seconds"] > 0
    }
    if not speeds:
        return
    slowest = min(speeds, key=lambda pair: speeds[pair])
    least = speeds[slowest]
    text = f"{show_bytes(least)}/s at least, from {names[slowest[0]]} to {names[slowest[1]]}"
    text += f", {show_bytes(max(speeds.values()))}/s at most ({len(speeds)} lines, one TCP stream)"
    facts = {"least": least, "most": max(speeds.values())}
    if least < SLOW_LINE:
        fix = "Gradients of every step go over it: look at the network between these two."
        yield Check("bandwidth", "warn", text, fix, facts)
    else:
        yield Check("bandwidth", "ok", text, facts=facts)


def _different(nodes: Sequence[Facts], names: Mapping[str, str]) -> Iterator[Check]:
    """Ranks of one gang are to have one torch, and packets of one size."""
    kinds = {
        "torch": {n["id"]: n["versions"]["torch"] for n in nodes if "versions" in n},
        "MTU": {
            n["id"]: str(n["facts"]["network"].get("mtu", ""))
            for n in nodes
            if n.get("facts") and "mtu" in n["facts"]["network"]
        },
    }
    for what, of in kinds.items():
        told = sorted(set(of.values()) - {""})
        if len(told) > 1:
            where = "; ".join(
                f"{value} on {', '.join(names[each] for each in of if of[each] == value)}"
                for value in told
            )
            state: State = "fail" if what == "torch" and len({*map(_public, told)}) > 1 else "warn"
            yield Check(what, state, f"differs: {where}", "Make it the same on all nodes.")


def _loopback(nodes: Sequence[Facts], names: Mapping[str, str]) -> Iterator[Check]:
    """A node that Ray knows by an address that only itself can use."""
    hosts = {node["host"] for node in nodes}
    for node in nodes:
        if node["address"].startswith("127.") and len(hosts) > 1:
            fix = "ray start --node-ip-address=…: an address that the other machines reach."
            text = f"Ray knows it as {node['address']}, which no other machine can reach"
            yield Check("address", "fail", text, fix, node=names[node["id"]])
