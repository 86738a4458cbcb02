"""Who may ask."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from penstock.base.errors import BadInput, Damaged
from penstock.server import create_app, tokens
from penstock.server.guard import LARGEST_BODY, is_loopback


def asked(home: Any, path: str = "/api/runs", *, method: str = "GET", app: Any = None, **h: str):
    with TestClient(app or create_app(home), base_url="http://127.0.0.1:8700") as client:
        return client.request(method, path, headers=h)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8700", "localhost", "LOCALHOST:1", "[::1]:8700", "127.1.2.3"]
)
def test_names_of_this_machine_are_answered(home: Any, host: str) -> None:
    assert asked(home, host=host).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8700", "", "[::1"]
)
def test_a_name_that_was_made_to_point_here_is_refused(home: Any, host: str) -> None:
    answer = asked(home, host=host)
    assert (answer.status_code, answer.json()["code"]) == (421, "bad-input")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
def test_other_web_pages_cannot_steer_a_home(home: Any, origin: str) -> None:
    answer = asked(home, "/api/runs/run-1/stop", method="POST", origin=origin)
    assert answer.status_code == 403
    same = asked(home, origin="http://127.0.0.1:8700")
    assert same.status_code == 200
    assert "access-control-allow-origin" not in same.headers


def test_with_a_token_everything_but_health_wants_it(home: Any) -> None:
    app = create_app(home, token=tokens.hash_token("the right one"), loopback=False)
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "the right one"}):
        for path in ("/api/runs", "/openapi.json", "/nothing"):
            answer = asked(home, path, app=app, host="server.example", **headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "token-needed")
            assert answer.headers["www-authenticate"] == "Bearer"
    right = {"authorization": "Bearer the right one", "host": "server.example"}
    assert asked(home, app=app, **right).status_code == 200
    assert asked(home, "/health", app=app, host="server.example").status_code == 200


def test_large_bodies_are_refused_with_and_without_a_length(home: Any) -> None:
    with TestClient(create_app(home), base_url="http://127.0.0.1") as client:
        large = b'{"model": "' + b"x" * LARGEST_BODY + b'"}'
        assert client.put("/api/deployments/a", content=large).status_code == 413

        def chunks() -> Any:
            for _ in range(20):
                yield b" " * (LARGEST_BODY // 10)

        answer = client.put("/api/deployments/a", content=chunks())
        assert answer.status_code >= 400
        assert home.deployments() == []


@given(st.text(max_size=30))
def test_only_addresses_of_loopback_are_loopback(host: str) -> None:
    if is_loopback(host):
        assert host.lower() == "localhost" or host.startswith("127.") or ":" in host


def test_only_the_hash_of_a_token_is_kept(tmp_path: Any) -> None:
    path = tmp_path / "new" / "server-token"
    assert tokens.kept(path) is None
    token = tokens.make(path)
    hashed = tokens.kept(path)
    assert hashed is not None
    assert token not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert tokens.matches(token, hashed)
    assert not tokens.matches(token + "x", hashed)
    second = tokens.make(path)
    assert second != token
    assert not tokens.matches(token, tokens.kept(path) or "")


def test_a_torn_hash_and_a_guessable_token_are_refused(tmp_path: Any) -> None:
    (tmp_path / "t").write_text("abc")
    with pytest.raises(Damaged):
        tokens.kept(tmp_path / "t")
    with pytest.raises(BadInput) as caught:
        tokens.check_own("hunter2")
    assert "hunter2" not in str(caught.value)
