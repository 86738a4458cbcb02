"""Which devices there are, and who gets them: without a GPU, a store or a process."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.errors import BadInput
from penstock.jobs import devices, queueing
from penstock.jobs.claiming import wish
from penstock.jobs.devices import Devices, found_here, visible
from penstock.records import Claim

TWO = Devices(("GPU-a", "GPU-b"), ("0", "1", "2", "3"))


def claim(run, ticket, holds=(), **wants):
    return Claim(run, "here", ticket, 0.0, wants, list(holds))


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (None, ["GPU-aa", "GPU-ab", "GPU-b"]),
        ("", []),
        ("2,0", ["GPU-b", "GPU-aa"]),
        ("GPU-b,GPU-aa", ["GPU-b", "GPU-aa"]),
        ("GPU-b,GPU-a,0", ["GPU-b"]),  # GPU-a could be two: CUDA takes what is before it
        ("0,-1,1", ["GPU-aa"]),
        ("0,0", ["GPU-aa"]),
        ("9", []),
        ("MIG-1,MIG-2", ["MIG-1", "MIG-2"]),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(said, left):
    environment = {} if said is None else {"CUDA_VISIBLE_DEVICES": said}
    assert visible(["GPU-aa", "GPU-ab", "GPU-b"], environment) == left


def test_the_setting_names_gpus():
    assert found_here("gpu:GPU-a, GPU-b", {}).gpus == ("GPU-a", "GPU-b")
    assert found_here("gpu:", {}).gpus == ()
    for wrong in ("GPU-a", "gpu:a,a", "tpu:a", ""):
        with pytest.raises(BadInput, match="devices="):
            found_here(wrong, {})


def test_the_driver_is_read_where_there_is_no_nvml(tmp_path, monkeypatch):
    for bus, uuid in (("0000:02:00.0", "GPU-b"), ("0000:01:00.0", "GPU-a"), ("1", "GPU-????")):
        (tmp_path / bus).mkdir()
        text = f"Model: \t\t NVIDIA H200\nGPU UUID: \t {uuid}\nVideo BIOS: 1\n"
        (tmp_path / bus / "information").write_text(text)
    monkeypatch.setattr(devices, "_DRIVER", tmp_path)
    monkeypatch.setitem(devices.importlib.sys.modules, "pynvml", None)
    assert devices.list_gpus() == ["GPU-a", "GPU-b"]


@pytest.mark.parametrize(
    ("device", "workers", "wanted"),
    [("auto", 2, {"gpu": 2}), ("auto", 3, {}), ("cuda", 1, {"gpu": 1}), ("cpu", 1, {})],
)
def test_a_gang_wants_a_gpu_for_each_rank_or_none(device, workers, wanted):
    assert wish(device, workers, 1, TWO, cores=False) == wanted


def test_cores_are_wanted_only_where_asked_and_never_more_than_there_are():
    assert wish("cpu", 2, 1, TWO, cores=True) == {"core": 2}
    assert wish("auto", 2, 8, TWO, cores=True) == {"gpu": 2, "core": 4}


def test_more_ranks_than_gpus_is_said_with_what_is_there():
    with pytest.raises(BadInput, match=r"needs 3 GPUs, and there are 2 \(GPU-a, GPU-b\)"):
        wish("cuda", 3, 1, TWO, cores=False)


def test_who_wants_little_does_not_pass_who_wants_much():
    holder = claim("a", 1, ["gpu/GPU-a"], gpu=1)
    much, little = claim("b", 2, gpu=2), claim("c", 3, gpu=1)
    assert queueing.grant(much, [holder, little], TWO) is None
    assert queueing.grant(little, [holder, much], TWO) is None
    assert queueing.grant(claim("d", 4, core=1), [holder, much], TWO) == ["core/0"]
    assert queueing.in_the_way(little, [holder, much]) == [holder, much]


@given(
    asked=st.lists(st.integers(1, 3), min_size=1, max_size=8),
    ends=st.lists(st.integers(0, 7), max_size=30),
)
def test_no_device_has_two_holders_and_everybody_comes_in_order(asked, ends):
    """Whatever ends when: all begin, in order of arrival, and never share."""
    there = Devices(("a", "b", "c"), ())
    waiting = [claim(str(n), n + 1, gpu=count) for n, count in enumerate(asked)]
    claims, began = list(waiting), []
    for end in [*ends, *range(8), *([0] * 8)]:
        for each in list(claims):
            others = [one for one in claims if one is not each]
            if not each.holds and (got := queueing.grant(each, others, there)):
                claims[claims.index(each)] = claim(each.run_id, each.ticket, got, **each.wants)
                began.append(each.ticket)
        held = [one for each in claims for one in each.holds]
        assert len(held) == len(set(held))
        holders = [each for each in claims if each.holds]
        if holders:
            claims.remove(holders[end % len(holders)])
    assert began == sorted(began) and len(began) == len(asked)
