"""Looks at what Penstock needs and says what is wrong and how to mend it.

installed   Python, packages, extras
stores      settings, the home's folder, meta, blobs, clock
here        disk, memory, ports, GPUs

Each check is one function from settings to `Check`s; none creates, locks or changes anything
(but one object in a remote blob store, removed at once), and one that breaks is itself a finding,
so that the doctor always finishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from penstock.base.errors import NetworkHome, PenstockError, SettingsError
from penstock.base.settings import Settings
from penstock.home.doctor import here, installed, stores
from penstock.home.views import Check

Look = Callable[[Settings], Iterator[Check]]

CHECKS: tuple[tuple[str, Look], ...] = (
    ("installation", installed.installation),
    ("settings", stores.settings_in_use),
    ("home", stores.home_folder),
    ("disk", here.disk),
    ("shared memory", here.shared_memory),
    ("memory", here.memory),
    ("meta", stores.meta_store),
    ("blobs", stores.blob_store),
    ("clock", stores.clock),
    ("ports", here.ports),
    ("gpus", here.accelerators),
)
_OF_THE_HOME = {"settings", "home", "disk", "meta", "blobs", "clock"}  # nothing without settings


def look(settings: Settings) -> list[Check]:
    """Every check in order; one that raises is a finding of its own."""
    return _looked(CHECKS, settings)


def look_without(error: SettingsError) -> list[Check]:
    """Settings that do not hold are a finding; what does not need them is looked at as well."""
    finding = Check("settings", "fail", error.what, error.fix, {"code": error.code, **error.facts})
    others = [(name, check) for name, check in CHECKS if name not in _OF_THE_HOME]
    return [finding, *_looked(others, Settings.model_validate({}))]


def _looked(checks: Sequence[tuple[str, Look]], settings: Settings) -> list[Check]:
    found: list[Check] = []
    for name, check in checks:
        try:
            found.extend(check(settings))
        except NetworkHome as error:
            if name == "home":  # other checks meet the same; once is enough
                found.append(Check(name, "fail", error.what, error.fix, error.facts))
        except PenstockError as error:
            found.append(Check(name, "fail", error.what, error.fix, {"code": error.code}))
        except Exception as error:  # noqa: BLE001 - the doctor must finish
            text = f"cannot be looked at: {type(error).__name__}: {error}"
            found.append(Check(name, "fail", text, "Tell us: this is not expected."))
    return found
