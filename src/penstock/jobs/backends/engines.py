"""The setting `engine`: which backend a run's agents come from.

processes         an agent on this machine (the default)
hosts:N, hosts:NxM
                  N agents on this machine, each as if it were a machine of its own with room
                  for M ranks: to try out what several machines do
ray, ray://…      a Ray cluster
"""

from __future__ import annotations

import os
import re

from penstock.base.errors import BadInput
from penstock.base.settings import Settings

_HOSTS = re.compile(r"hosts:([1-9]\d*)(?:x([1-9]\d*))?")


def is_here(settings: Settings) -> bool:
    """Whether ranks and workers run on the controller's machine, and use its devices."""
    return settings.engine == "processes"


def is_ray(engine: str) -> bool:
    return engine == "ray" or engine.startswith("ray:")


def hosts_of(engine: str) -> tuple[int, int] | None:
    """(machines that are played, ranks of each; 0: as many as it takes); None for another engine.

    >>> hosts_of("hosts:2x4"), hosts_of("hosts:3"), hosts_of("ray")
    ((2, 4), (3, 0), None)
    """
    match = _HOSTS.fullmatch(engine)
    return None if match is None else (int(match[1]), int(match[2] or 0))


def check(settings: Settings) -> None:
    """Raises BadInput where the setting names no engine, or one that cannot do with the stores."""
    engine = settings.engine
    if engine == "processes" or hosts_of(engine):
        return
    if not is_ray(engine):
        raise BadInput(
            f'engine = "{engine}" names none',
            'Say "processes", "ray://HOST:10001", or "hosts:2" to try out several machines here.',
        )
    address = address_of(engine, os.environ.get("RAY_ADDRESS"))
    if address != "local" and settings.blobs is None:
        raise BadInput(
            f'engine = "{engine}" needs a blob store that all nodes reach',
            'Set `blobs`, to "s3://BUCKET/PREFIX", say; or to a file:// URL of a shared disk.',
        )


def address_of(engine: str, environment: str | None) -> str:
    """What `ray.init` is told. Raises BadInput.

    >>> address_of("ray://head:10001", None), address_of("ray:10.0.0.1:6379", None)
    ('ray://head:10001', '10.0.0.1:6379')
    >>> address_of("ray", None), address_of("ray", "10.0.0.1:6379")
    ('local', '10.0.0.1:6379')
    """
    if engine == "ray":
        return environment or "local"
    address = engine if engine.startswith("ray://") else engine.removeprefix("ray:")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise BadInput(
            f'engine = "{engine}" names no cluster',
            'Say "ray://HOST:10001" (Ray client), "ray:HOST:6379" (from one of its nodes), or '
            '"ray" (the one of RAY_ADDRESS, or one on this machine).',
        )
    return address
