"""The real process: events live and resumed, tokens, deployments kept, clean ends."""

from __future__ import annotations

import json
import signal
import threading
from typing import Any

import httpx
import psutil
import pytest

from penstock.base import process


class Stream:
    """Server-sent events, parsed."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()

    def next(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        for line in self._lines:
            if not line and fields:
                return fields
            if line and not line.startswith(":"):
                key, _, value = line.partition(": ")
                fields[key] = value
        raise EOFError


def tell(home: Any, *numbers: int) -> None:
    for number in numbers:
        with home.stores.meta.write() as meta:
            meta.event("test/a", "test.told", {"number": number})


def numbers(stream: Stream, count: int) -> list[int]:
    return [json.loads(stream.next()["data"])["body"]["number"] for _ in range(count)]


def test_events_are_live_and_a_client_that_comes_back_misses_none(home: Any, up: Any) -> None:
    server = up()
    with server.client() as client:
        with client.stream("GET", "/api/events/stream?subject=test/*") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            stream = Stream(response)
            tell(home, 1, 2, 3)
            assert numbers(stream, 2) == [1, 2]
            third = stream.next()
            assert (third["event"], json.loads(third["data"])["subject"]) == ("test.told", "test/a")
        tell(home, 4, 5)  # nobody listens
        headers = {"Last-Event-ID": third["id"]}
        with client.stream(
            "GET", "/api/events/stream?subject=test/*&after=0", headers=headers
        ) as response:
            stream = Stream(response)
            tell(home, 6)
            assert numbers(stream, 3) == [4, 5, 6]
        with client.stream("GET", "/api/events/stream?subject=test/*&after=0") as response:
            assert numbers(Stream(response), 6) == [1, 2, 3, 4, 5, 6]


def test_a_signal_ends_it_cleanly_even_while_a_stream_is_open(home: Any, up: Any) -> None:
    for sig in (signal.SIGINT, signal.SIGTERM):
        server = up()
        with server.client() as client, client.stream("GET", "/api/events/stream") as response:
            assert response.status_code == 200
            server.process.send_signal(sig)
            for _ in response.iter_lines():
                pass
        assert server.process.wait() == 0
        assert "Traceback" not in server.errors.read_text()


def test_it_keeps_deployments_and_drains_them_at_its_end(home: Any, up: Any, until: Any) -> None:
    server = up()
    with server.client() as client:
        assert client.put("/api/deployments/front", json={"model": "toy"}).status_code == 200
        ready = until(lambda: (d := client.get("/api/deployments/front").json())["address"] and d)
    assert ready["state"] == "ready"
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait() == 0
    assert process.start_time(ready["detail"]["pid"]) is None
    assert home.deployment("front").state == "pending"


@pytest.mark.faults
def test_killed_it_leaves_no_orphan_and_the_next_one_goes_on(
    home: Any, up: Any, until: Any
) -> None:
    home.deploy("front", "toy")
    server = up()
    ready = until(lambda: (d := home.deployment("front")).address and d)
    everyone = psutil.Process(server.process.pid).children(recursive=True)
    assert ready.detail["pid"] in [child.pid for child in everyone]
    server.process.kill()
    server.process.wait()
    until(lambda: not any(child.is_running() and child.status() != "zombie" for child in everyone))
    up()
    again = until(
        lambda: (
            (d := home.deployment("front")).detail.get("pid") != ready.detail["pid"]
            and d.state == "ready"
            and d
        )
    )
    assert again.address == ready.address


def test_a_new_token_is_shown_once_and_asked_for_ever_after(home: Any, up: Any) -> None:
    server = up("--new-token")
    assert server.token
    with server.client() as client:
        assert client.get("/api/runs").status_code == 401
        assert client.get("/health").status_code == 200
    with server.client(Authorization=f"Bearer {server.token}") as client:
        assert client.get("/api/runs").status_code == 200
    server.process.send_signal(signal.SIGTERM)
    server.process.wait()
    again = up()
    assert again.token is None
    with again.client() as client:
        assert client.get("/api/runs").status_code == 401
    with again.client(Authorization=f"Bearer {server.token}") as client:
        assert client.get("/api/runs").status_code == 200
    for log in (server.errors, again.errors):
        assert server.token not in log.read_text()


def test_the_settings_can_give_the_token(home: Any, up: Any) -> None:
    token = "a-long-enough-token-of-my-own"
    server = up(PENSTOCK_TOKEN=token)
    with server.client() as client:
        assert client.get("/api/runs").status_code == 401
    with server.client(Authorization=f"Bearer {token}") as client:
        assert client.get("/api/runs").status_code == 200


def test_beyond_loopback_it_does_not_start_without_a_token(home: Any, up: Any) -> None:
    server = up("--host", "0.0.0.0")
    assert server.process.wait() == 5
    assert "token" in server.errors.read_text()
    assert "Traceback" not in server.errors.read_text()
    with_token = up("--host", "0.0.0.0", "--new-token")
    url = with_token.url.replace("0.0.0.0", "127.0.0.1")
    assert httpx.get(f"{url}/api/runs").status_code == 401


def test_a_taken_port_or_an_unknown_host_is_one_clear_error(home: Any, up: Any) -> None:
    first = up()
    port = first.url.rpartition(":")[2]
    second = up("--port", port)
    assert second.process.wait() == 7
    assert f"(pid {first.process.pid})" in second.errors.read_text()
    assert "Is another `penstock up` running?" in second.errors.read_text()
    nowhere = up("--host", "no.such.host.invalid")
    assert nowhere.process.wait() == 2
    assert "Traceback" not in nowhere.errors.read_text()


def test_adoption_goes_on_after_a_store_that_did_not_answer_and_ends_with_the_server(
    home: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.base.errors import Unavailable
    from penstock.home.local import LocalHome
    from penstock.server import up as module

    asked: list[int] = []

    class Adopting(LocalHome):
        def adopt(self) -> list[str]:
            asked.append(len(asked))
            if len(asked) == 1:
                raise Unavailable("gone for a while", "wait")
            return ["run-1"]

    monkeypatch.setattr(module, "_ADOPT", 0.01)
    with module._adopting(Adopting(home.settings), threading.Event()):
        until(lambda: len(asked) >= 3)
    assert "adopt" not in {each.name for each in threading.enumerate()}
