"""How a server is: its version, its clock beside ours, its connections."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"
_ROUNDS = 5  # of which the fastest is the most certain
_SERVER = """
    SELECT current_setting('server_version'),
           current_setting('max_connections')::int
               - current_setting('superuser_reserved_connections')::int,
           (SELECT coalesce(sum(numbackends), 0)::int FROM pg_stat_database),
           pg_is_in_recovery()
"""


@dataclass(frozen=True, slots=True)
class Vitals:
    """version      as the server says it: "18.6"
    seconds      of one short question
    offset       seconds that its clock is ahead of this machine's
    uncertainty  of the offset, in seconds: half of the exchange
    used, most   connections in use, this one too, and those that users may have
    standby      it cannot be written
    """

    version: str
    seconds: float
    offset: float
    uncertainty: float
    used: int
    most: int
    standby: bool


def of(connection: Connection) -> Vitals:
    version, most, used, standby = connection.exec_driver_sql(_SERVER).one()
    exchanges = []
    for _ in range(_ROUNDS):
        before = time.time()
        there = connection.exec_driver_sql(_CLOCK).scalar_one()
        half = (time.time() - before) / 2
        exchanges.append((half, there - before - half))
    half, offset = min(exchanges)
    return Vitals(version.split()[0], 2 * half, offset, half, used, most, standby)
