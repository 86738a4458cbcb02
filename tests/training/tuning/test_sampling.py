"""What is tried is a function of the seed, the number and the trials before; nothing else."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.errors import BadInput, MissingExtra
from penstock.training.tuning import sampling, space
from penstock.training.tuning.history import Trial

SPACE = {
    "lr": space.uniform(1e-5, 1e-2, log=True),
    "width": space.integers(16, 256, step=16),
    "layers": space.integers(1, 8, log=True),
    "kind": space.choice(["a", "b", ["c", 1]]),
}


def score(params):
    """Least at lr=1e-3, width=128, kind a."""
    far = abs(math.log10(params["lr"]) + 3) + abs(params["width"] - 128) / 128
    return far + (params["kind"] != "a")


def search(sampler, count, direction="minimize", seed=1, before=()):
    sign = 1 if direction == "minimize" else -1
    trials = list(before)
    for number in range(len(trials), count):
        params = sampling.propose(sampler, SPACE, seed, number, trials, direction)
        value = sign * score(params)
        trials.append(Trial(number, "r", "n", "complete", params, value=value, curve=[(1, value)]))
    return trials


def fits(params):
    assert set(params) == set(SPACE)
    assert 1e-5 <= params["lr"] <= 1e-2
    assert params["width"] in range(16, 257, 16)
    assert params["layers"] in range(1, 9)
    assert params["kind"] in ("a", "b", ["c", 1])


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes"])
def test_a_search_that_stops_anywhere_goes_on_as_if_it_had_not(sampler):
    whole = search(sampler, 30)
    for each in whole:
        fits(each.params)
    for stop in (0, 1, 11, 29):
        assert search(sampler, 30, before=whole[:stop]) == whole
    assert search(sampler, 5, seed=2) != whole[:5]


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_what_learns_from_trials_gets_nearer(sampler, direction):
    scores = [score(each.params) for each in search(sampler, 60, direction)]
    assert sum(scores[-20:]) < 0.8 * sum(scores[:20])


def test_trials_that_failed_or_go_on_are_no_obstacle():
    trials = search("tpe", 12)
    for number, state in enumerate(["running", "waiting", "failed", "pruned"], 12):
        trials.append(Trial(number, "r", "n", state, trials[0].params, curve=[]))
    nan = [(1, math.nan)]
    trials.append(Trial(16, "r", "n", "pruned", trials[0].params, value=math.nan, curve=nan))
    for sampler in ("tpe", "cmaes"):
        fits(sampling.propose(sampler, SPACE, 0, 17, trials, "minimize"))


def test_a_grid_has_every_point_once_and_the_last_path_moves_fastest():
    grid = {"a": space.choice([1, 2]), "b": space.integers(0, 4, step=2)}
    assert sampling.grid_size(grid) == 6
    points = [sampling.propose("grid", grid, 0, at, [], "minimize") for at in range(6)]
    expected = itertools.product([1, 2], [0, 2, 4])
    assert [tuple(point.values()) for point in points] == list(expected)
    with pytest.raises(BadInput, match="a grid has no points along lr"):
        sampling.grid_size(SPACE)


@pytest.mark.parametrize(("sampler", "package"), [("tpe", "optuna"), ("cmaes", "cmaes")])
def test_a_missing_package_is_named_with_what_to_install(monkeypatch, sampler, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtra, match=package) as found:
        sampling.check(sampler, SPACE)
    assert "pip install 'penstock[tune]'" in found.value.fix


def test_cma_es_needs_something_that_moves():
    with pytest.raises(BadInput, match="choices alone"):
        sampling.check("cmaes", {"kind": space.choice(["a", "b"])})


@given(share=st.floats(0, 1), name=st.sampled_from(sorted(SPACE)))
def test_every_share_gives_a_value_of_the_dimension_and_leads_back(share, name):
    dimension = SPACE[name]
    value = dimension.at(share)
    back = dimension.share(value)
    assert 0 <= back <= 1
    again = dimension.at(back)
    assert again == pytest.approx(value) if isinstance(value, float) else again == value


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: space.uniform(1, 1), "is no interval"),
        (lambda: space.uniform(0, 1, log=True), "no logarithm"),
        (lambda: space.uniform(0, math.nan), "is no interval"),
        (lambda: space.integers(5, 2), "has no value"),
        (lambda: space.integers(1, 9, step=2, log=True), "is not possible"),
        (lambda: space.choice([]), "no list of different values"),
        (lambda: space.choice(["a", "a"]), "no list of different values"),
        (lambda: space.choice("ab"), "no list of different values"),
    ],
)
def test_what_is_no_space_is_refused(make, says):
    with pytest.raises(BadInput, match=says):
        make()


def test_a_space_survives_as_plain_data():
    assert space.from_data(space.as_data(SPACE)) == SPACE
