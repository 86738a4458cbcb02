"""The hosts that other tests stand on do what those say of them."""

import os
import socket
import subprocess
import sys
import time

import pytest
from tests.hosts import ROOT, Hosts, needs_namespaces

pytestmark = [pytest.mark.root, pytest.mark.faults]

LISTEN = (
    "import socket, sys\nserver = socket.create_server((sys.argv[1], 9000))\n"
    "while True: server.accept()[0].sendall(b'here')"
)


@pytest.fixture
def hosts():
    needs_namespaces()
    found = Hosts(2)
    yield found
    found.close()


def answers(address):
    """Whether a process at the address says something within a second."""
    try:
        with socket.create_connection((address, 9000), 1) as sock:
            sock.settimeout(1)
            return sock.recv(4) == b"here"
    except OSError:
        return False


def await_answer(host):
    for _ in range(100):
        if answers(host.address):
            return
        time.sleep(0.05)
    raise AssertionError(host.said())


def test_a_host_sees_nothing_of_another_and_is_reached_by_its_address(hosts):
    one, two = hosts
    one.begin(sys.executable, "-c", LISTEN, one.address)
    await_answer(one)
    assert one.run("hostname").strip() == one.name
    assert len(one.pids()) == 1 and two.pids() == []
    one.run("touch", "/tmp/file", "/dev/shm/memory", "/mnt/kept")
    assert two.run("ls", "/tmp", "/dev/shm", "/mnt").count("file") == 0
    assert {line.rpartition("/")[2] for line in one.left()} >= {"file", "memory"}


def test_power_is_cut_links_are_cut_and_processes_are_frozen(hosts):
    one, two = hosts
    for host in hosts:
        host.begin(sys.executable, "-c", LISTEN, host.address)
        await_answer(host)
    one.cut()
    assert not answers(one.address) and len(one.pids()) == 1
    one.heal()
    await_answer(one)
    two.cut(hosts.address)
    assert not answers(two.address)
    one.run("bash", "-c", f"exec 3<>/dev/tcp/{two.address}/9000; head -c4 <&3")
    two.heal()
    two.freeze()
    assert not answers(two.address)
    two.thaw()
    await_answer(two)
    two.run("touch", "/mnt/kept", "/tmp/lost")
    two.freeze()
    two.power_cut()
    assert not answers(two.address) and two.pids() == []
    two.start()
    assert two.run("ls", "/mnt").split() == ["kept"] and "lost" not in two.run("ls", "/tmp")


def test_what_a_killed_test_leaves_is_swept_by_the_next():
    needs_namespaces()
    script = "import os, signal; from tests.hosts import Hosts; h = Hosts(1)\n"
    script += "print(h.number, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    killed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    name = f"pst{int(killed.stdout)}h1"
    assert name in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
    Hosts().close()
    assert name not in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
