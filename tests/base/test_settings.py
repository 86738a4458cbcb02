"""File, then environment, then arguments; and what does not hold is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.base.errors import SettingsError
from penstock.base.project import FILE, project_folder
from penstock.base.settings import Settings, load_settings


def write(folder: Path, text: str) -> None:
    (folder / FILE).write_text(text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sources=st.sets(st.sampled_from(["file", "environment", "arguments"])))
def test_the_later_source_wins(tmp_path, sources):
    write(tmp_path, "lease_seconds = 11.0\n" if "file" in sources else "")
    environment = {"PENSTOCK_LEASE_SECONDS": "12"} if "environment" in sources else {}
    arguments = {"lease_seconds": 13.0 if "arguments" in sources else None}
    expected = {"file": 11.0, "environment": 12.0, "arguments": 13.0}
    wanted = max([expected[source] for source in sources], default=10.0)
    assert load_settings(tmp_path, environment, **arguments).lease_seconds == wanted


@pytest.mark.parametrize("source", ["file", "environment", "arguments"])
def test_an_unknown_key_names_the_source_and_the_nearest(tmp_path, source):
    write(tmp_path, "log_levle = 'info'\n" if source == "file" else "")
    environment = {"PENSTOCK_LOG_LEVLE": "info"} if source == "environment" else {}
    arguments = {"log_levle": "info"} if source == "arguments" else {}
    with pytest.raises(SettingsError, match='"log_levle"') as caught:
        load_settings(tmp_path, environment, **arguments)
    assert 'Did you mean "log_level"?' in caught.value.fix
    named = {"file": FILE, "environment": "environment", "arguments": "arguments"}[source]
    assert named in caught.value.what


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("log_level", "loud"),
        ("lease_seconds", "soon"),
        ("lease_seconds", "0"),
        ("keep_checkpoints", "0"),
        ("hang_seconds", "0"),
        ("hang_seconds", "nan"),
        ("hang_seconds", "never"),
    ],
)
def test_a_value_that_does_not_hold_names_key_source_and_meaning(tmp_path, key, value):
    with pytest.raises(SettingsError, match=f'"{key}" in the environment') as caught:
        load_settings(tmp_path, {f"PENSTOCK_{key.upper()}": value})
    assert str(Settings.model_fields[key].description) in caught.value.fix


def test_hangs_are_waited_for_some_seconds_or_for_ever(tmp_path):
    write(tmp_path, "hang_seconds = 90\n")
    assert load_settings(tmp_path, {}).hang_seconds == 90.0
    for told, held in (("5", 5.0), ("off", "off")):
        assert load_settings(tmp_path, {"PENSTOCK_HANG_SECONDS": told}).hang_seconds == held


def test_a_file_that_is_not_toml_is_one_clear_error(tmp_path):
    write(tmp_path, "home = [\n")
    with pytest.raises(SettingsError, match="is not TOML"):
        load_settings(tmp_path, {})


def test_a_relative_home_lies_in_the_project_and_an_absolute_one_stays(tmp_path):
    assert load_settings(tmp_path, {}).home == tmp_path / ".penstock"
    assert load_settings(tmp_path, {"PENSTOCK_HOME": "state"}).home == tmp_path / "state"
    assert load_settings(tmp_path, {}, home="/srv/x").home == Path("/srv/x")
    assert load_settings(tmp_path, {}, home="~/x").home == Path.home() / "x"


def test_the_project_is_found_upwards(tmp_path):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "a" / ".git").mkdir()
    assert project_folder(deep) == tmp_path / "a"
    write(deep, "")
    assert project_folder(deep) == deep
    write(tmp_path / "a", "keep_checkpoints = 9\n")
    (deep / FILE).unlink()
    assert load_settings(deep, {}).keep_checkpoints == 9


def test_variables_of_tests_and_ranks_are_no_settings(tmp_path):
    environment = {"PENSTOCK_CHAOS_SEED": "1", "PENSTOCK_RANK": "0", "OTHER": "x"}
    assert load_settings(tmp_path, environment) == load_settings(tmp_path, {})


def test_every_setting_says_what_it_means():
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.endswith("."), name
