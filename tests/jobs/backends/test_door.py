"""An agent for a controller elsewhere: who may come in, what it gives, what ends it."""

import base64
import dataclasses
import queue
import time
from pathlib import Path

import pytest

from penstock.base import process
from penstock.base.errors import LeaseLost, Unavailable
from penstock.jobs.agent import giving
from penstock.jobs.agent.giving import Giving
from penstock.jobs.backends import hosting
from penstock.jobs.backends.hosting import Hosted
from penstock.jobs.rpc import Session
from penstock.signals import Emitter, read_scalars

pytestmark = [pytest.mark.faults, pytest.mark.timeout(60)]


def attached(hosted: Hosted, generation: int = 1, **changes: object) -> Session:
    session = Session(dataclasses.replace(hosted.door, **changes), queue.Queue())
    session.attach(generation, {"pid": 0}, 2.0)
    return session


def test_only_who_shows_the_token_comes_in(hosted: Hosted) -> None:
    attached(hosted).close()
    with pytest.raises(Unavailable, match="UNAUTHENTICATED"):
        attached(hosted, token="guessed")
    stranger = Session(dataclasses.replace(hosted.door, token="guessed"), queue.Queue())
    with pytest.raises(Unavailable, match="UNAUTHENTICATED"):
        list(stranger.files({}))
    stranger.close()


def test_an_agent_with_another_certificate_is_not_spoken_to(hosted: Hosted, tmp_path: Path) -> None:
    from penstock.jobs.agent.door import _own_certificate

    with pytest.raises(Unavailable, match="no agent answers"):
        attached(hosted, certificate=_own_certificate()[1].decode())


def test_the_door_is_told_to_nobody_else(hosted: Hosted) -> None:
    file = hosted.folder / "runtime" / "door.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert hosted.folder.stat().st_mode & 0o077 == 0
    assert hosted.door.token not in repr(hosted.door)
    said = (hosted.folder / "logs" / "agent.log").read_text()
    assert hosted.door.token not in said


def test_an_older_controller_is_refused(hosted: Hosted) -> None:
    newer = attached(hosted, generation=5)
    with pytest.raises(LeaseLost):
        attached(hosted, generation=4)
    newer.close()


def test_it_beats_and_ends_with_who_started_it(hosted: Hosted) -> None:
    inbox: queue.Queue[tuple[object, dict[str, object]]] = queue.Queue()
    session = Session(hosted.door, inbox)
    session.attach(1, {"pid": 0}, 5.0)
    deadline, beats = time.monotonic() + 20, 0
    while beats < 3:
        assert time.monotonic() < deadline
        beats += "beat" in inbox.get(timeout=20)[1]
    session.close()
    assert process.start_time(hosted.child.pid) is not None
    hosted.child.kill()
    hosted.child.wait()


def test_an_address_that_is_not_of_this_machine_is_said() -> None:
    with pytest.raises(Unavailable, match=r"no interface with the address 192\.0\.2\.1"):
        hosting.interface_of("192.0.2.1")
    assert hosting.interface_of("127.0.0.1") == "lo"


# files


@pytest.mark.parametrize(
    "name",
    [
        "logs/../x.log",
        "../x",
        "logs/x",
        "signals/x.seg",
        "other/x.log",
        "logs//x.log",
        "logs/a/b.log",
    ],
)
def test_other_names_are_not_taken(name: str) -> None:
    assert not giving.is_name(name)


def test_what_grew_is_given_from_where_the_other_side_ends(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    home, run = tmp_path / "home", "a-run"
    spec = {"logs": str(logs), "node": {"home": str(home)}, "run_id": run}
    give = Giving(spec, {0})
    (logs / "rank-0.log").write_bytes(b"first")
    (logs / "other").write_bytes(b"nobody's")
    pieces = list(give.beyond({}))
    assert [(p["name"], p["offset"]) for p in pieces] == [("logs/rank-0.log", 0)]
    with (logs / "rank-0.log").open("ab") as stream:
        stream.write(b" and more")
    (piece,) = give.beyond({"logs/rank-0.log": 5})
    assert (piece["offset"], base64.b64decode(piece["data"])) == (5, b" and more")
    assert list(give.beyond({"logs/rank-0.log": 14})) == []


def test_of_a_segment_whole_records_are_given(tmp_path: Path) -> None:
    """Copied while its writer goes on, piece by piece, it reads as the original does."""
    spec = {
        "logs": str(tmp_path / "logs"),
        "node": {"home": str(tmp_path / "home")},
        "run_id": "a-run",
    }
    folder, copied = tmp_path / "home" / "runs" / "a-run" / "signals", tmp_path / "copy"
    copied.mkdir()
    emitter = Emitter(folder, "a-run", 0, 1)
    other = Emitter(folder, "a-run", 7, 1)  # a rank of another agent
    give, have = Giving(spec, {0}), dict[str, int]()
    for step in range(50):
        emitter.scalar(step, "loss", step / 2)
        other.scalar(step, "loss", 0.0)
        if step % 7 and step < 49:
            continue
        for piece in give.beyond(have):
            assert "-00007-" not in piece["name"]
            path = copied / Path(piece["name"]).name
            with path.open("ab") as stream:
                assert stream.tell() == piece["offset"]
                stream.write(base64.b64decode(piece["data"]))
            have[piece["name"]] = path.stat().st_size
    steps = read_scalars(copied)["step"].to_pylist()
    assert steps == list(range(50)) and read_scalars(copied)["value"].to_pylist()[-1] == 24.5
    emitter.close()
    other.close()
