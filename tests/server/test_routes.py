"""Each route over a real home."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.server.errors import Problem


def good(client: Any, method: str, path: str, **more: Any) -> Any:
    answer = client.request(method, path, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def bad(client: Any, status: int, method: str, path: str, **more: Any) -> dict[str, Any]:
    answer = client.request(method, path, **more)
    assert answer.status_code == status, answer.text
    problem = Problem.model_validate(answer.json())
    assert problem.what
    assert problem.fix
    return answer.json()


def test_runs_are_listed_newest_first_and_filtered(client: Any) -> None:
    assert [run["id"] for run in good(client, "GET", "/api/runs")] == ["run-2", "run-1"]
    assert [r["id"] for r in good(client, "GET", "/api/runs?name=base")] == ["run-1"]
    assert [r["id"] for r in good(client, "GET", "/api/runs?state=failed")] == ["run-2"]
    assert len(good(client, "GET", "/api/runs?limit=1")) == 1


@pytest.mark.parametrize("run", ["run-1", "base"])
def test_a_run_is_found_by_id_or_name(client: Any, run: str) -> None:
    found = good(client, "GET", f"/api/runs/{run}")
    assert (found["run"]["id"], found["spec"]["config"]) == ("run-1", {"lr": 0.1})


def test_a_name_with_a_slash_is_one_name(client: Any) -> None:
    assert good(client, "GET", "/api/runs/team/base")["run"]["id"] == "run-2"
    assert good(client, "GET", "/api/models/team/toy@1")["version"]["name"] == "team/toy"
    assert good(client, "GET", "/api/models/team%2Ftoy@1")["version"]["name"] == "team/toy"


def test_what_is_below_a_run(client: Any) -> None:
    assert good(client, "GET", "/api/runs/run-1/metrics") == {}
    assert good(client, "GET", "/api/runs/run-1/processes") == []
    assert good(client, "POST", "/api/runs/run-1/verify") == []
    logs = client.get("/api/runs/run-1/logs")
    assert logs.text == "first\nsecond\n"
    assert logs.headers["content-type"].startswith("text/plain")
    assert "no log of rank 3" in bad(client, 404, "GET", "/api/runs/run-1/logs?rank=3")["what"]


def test_an_unknown_run_offers_the_nearest(client: Any) -> None:
    problem = bad(client, 404, "GET", "/api/runs/bsae")
    assert (problem["code"], "base" in problem["fix"]) == ("not-found", True)
    for path in ("metrics", "logs", "processes"):
        bad(client, 404, "GET", f"/api/runs/nobody/{path}")
    for path in ("stop", "resume", "verify"):
        bad(client, 404, "POST", f"/api/runs/nobody/{path}")


def test_models_with_their_aliases_and_manifest(client: Any) -> None:
    listed = good(client, "GET", "/api/models?name=toy")
    assert [(v["version"]["name"], v["aliases"]) for v in listed] == [("toy", ["production"])]
    found = good(client, "GET", "/api/models/toy@production")
    assert found["version"]["version"] == 1
    assert found["manifest"]["signature"]["inputs"][0]["name"] == "x"
    assert bad(client, 404, "GET", "/api/models/tyo")["code"] == "not-found"
    assert bad(client, 400, "GET", "/api/models/@@")["code"] == "bad-input"


def test_an_alias_moves_only_with_a_passing_evaluation(client: Any) -> None:
    wish = {"reference": "team/toy@1", "alias": "production"}
    problem = bad(client, 409, "POST", "/api/promotions", json=wish)
    assert problem["code"] == "refused"
    bad(client, 400, "POST", "/api/promotions", json={"reference": "toy"})
    bad(client, 400, "POST", "/api/promotions", json={**wish, "force": True})


def test_with_a_passing_evaluation_an_alias_moves_and_lineage_names_it(client: Any) -> None:
    wish = {"reference": "toy@1", "alias": "staging"}
    moved = good(client, "POST", "/api/promotions", json=wish)
    assert (moved["name"], moved["alias"], moved["version"]) == ("toy", "staging", 1)
    assert moved["reason"] == {"evaluation": "eval-1", "suite": "suite"}
    again = good(client, "POST", "/api/promotions", json={**wish, "evaluation": "eval-1"})
    assert again == moved
    found = good(client, "GET", "/api/lineage/toy@staging")
    assert found["line"] == "staging <- base"
    steps = [(step["what"], step["name"]) for step in found["steps"]]
    assert steps == [
        ("alias", "staging"), ("model", "toy@1"), ("evaluation", "eval-1"), ("run", "base"),
    ]  # fmt: skip


def test_an_unknown_lineage_is_not_found(client: Any) -> None:
    assert bad(client, 404, "GET", "/api/lineage/nobody@1")["code"] == "not-found"


def test_data(client: Any) -> None:
    assert good(client, "GET", "/api/data") == []
    assert bad(client, 404, "GET", "/api/data/digits")["code"] == "not-found"


def test_evaluations(client: Any) -> None:
    assert [e["id"] for e in good(client, "GET", "/api/evaluations")] == ["eval-1"]
    assert good(client, "GET", "/api/evaluations?model=toy@1")[0]["passed"] is True
    assert bad(client, 404, "GET", "/api/evaluations/nobody")["code"] == "not-found"


def test_a_deployment_is_wanted_looked_at_and_not_wanted_any_more(client: Any) -> None:
    wanted = good(client, "PUT", "/api/deployments/team/front", json={"model": "toy@production"})
    assert (wanted["resolved"], wanted["state"], wanted["wanted"]) == ("toy@1", "pending", "up")
    again = good(client, "PUT", "/api/deployments/team/front", json={"model": "toy@production"})
    assert again == wanted == good(client, "GET", "/api/deployments/team/front")
    assert [d["name"] for d in good(client, "GET", "/api/deployments")] == ["team/front"]
    assert good(client, "DELETE", "/api/deployments/team/front")["wanted"] == "down"
    bad(client, 404, "GET", "/api/deployments/nobody")
    bad(client, 404, "DELETE", "/api/deployments/nobody")
    bad(client, 404, "PUT", "/api/deployments/front", json={"model": "nobody"})
    bad(client, 400, "PUT", "/api/deployments/fr%20ont", json={"model": "toy"})
    bad(client, 400, "PUT", "/api/deployments/front", content=b"{")


def test_events_come_in_pages(client: Any) -> None:
    everything = good(client, "GET", "/api/events?limit=1000")
    assert [e["seq"] for e in everything] == sorted(e["seq"] for e in everything)
    first = everything[0]["seq"]
    assert good(client, "GET", f"/api/events?after={first}&limit=1")[0]["seq"] > first
    of_run = good(client, "GET", "/api/events?subject=run/*")
    assert any(e["kind"] == "run.finished" for e in of_run)
    assert {e["subject"].partition("/")[0] for e in of_run} == {"run"}


def test_health_and_doctor(client: Any) -> None:
    assert good(client, "GET", "/health") == {"status": "ok"}
    assert {check["state"] for check in good(client, "GET", "/api/doctor")} <= {
        "ok",
        "warn",
        "fail",
    }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("PATCH", "/api/runs", 405),
        ("GET", "/api/runs?limit=0", 400),
        ("GET", "/api/runs?limit=many", 400),
        ("GET", "/api/events?after=-1", 400),
        ("GET", f"/api/events?after={2**64}", 400),
        ("GET", "/docs", 404),
    ],
)
def test_what_cannot_be_asked_is_one_clear_error(
    client: Any, method: str, path: str, status: int
) -> None:
    bad(client, status, method, path)


def test_a_fault_of_the_server_tells_no_secrets(home: Any) -> None:
    from starlette.testclient import TestClient

    from penstock.server import create_app

    class Broken:
        def deployments(self) -> None:
            raise RuntimeError("password=hunter2")

    app = create_app(Broken())  # type: ignore[arg-type]
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        assert "hunter2" not in str(bad(client, 500, "GET", "/api/deployments"))


def test_every_error_class_has_a_status() -> None:
    from penstock.base.errors import family
    from penstock.server.errors import status_of

    for code, kind in family().items():
        status = status_of(kind("what", "fix"))
        assert 400 <= status < 600, code


def test_a_loss_that_is_no_number_is_null_not_an_error(home: Any) -> None:
    from dataclasses import replace

    from starlette.testclient import TestClient

    from penstock.home.local import LocalHome
    from penstock.server import create_app

    class Diverged(LocalHome):
        def run(self, run: str) -> Any:
            return replace(super().run(run), metrics={"loss": (3, float("nan"))})

        def metrics(self, run: str, names: Any = ()) -> Any:
            return {"loss": [(1, 0.5), (2, float("inf")), (3, float("nan"))]}

    with TestClient(create_app(Diverged(home.settings)), base_url="http://127.0.0.1") as client:
        assert good(client, "GET", "/api/runs/run-1")["metrics"] == {"loss": [3, None]}
        found = good(client, "GET", "/api/runs/run-1/metrics")
        assert found == {"loss": [[1, 0.5], [2, None], [3, None]]}
