"""neighbour_serve.py HOME FILE: serves the cache of shards in HOME as an agent does; FILE says how
to reach it. Ends when its parent does."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from penstock.jobs.agent import door
from penstock.jobs.agent.lending import Lending
from penstock.jobs.agent.parts import Parts
from penstock.jobs.neighbours.doors import Neighbours, as_message


def main():
    home, file = map(Path, sys.argv[1:])
    read = Lending(home, True, Parts()).read
    _server, mine = door.open_for_neighbours({"elsewhere": {"host": "127.0.0.1"}}, read)
    draft = file.with_suffix(".new")
    draft.write_text(json.dumps(as_message(Neighbours("second", {"first": mine}))))
    draft.replace(file)
    threading.Event().wait()


main()
