"""`python -m penstock.server --home FOLDER`: what `penstock up` does, without the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from penstock.base.errors import PenstockError
from penstock.base.log import set_up
from penstock.base.settings import UP_PORT
from penstock.home.local import open_home
from penstock.server.up import HOST, serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m penstock.server")
    parser.add_argument("--home", type=Path, help="the home's folder; default: the settings'")
    parser.add_argument("--host", default=HOST)
    parser.add_argument("--port", type=int, default=UP_PORT, help="0 takes a free one")
    parser.add_argument("--new-token", action="store_true", help="make a token and show it once")
    parser.add_argument("--json", action="store_true", help="say where it listens as JSON")
    given = parser.parse_args()
    try:
        home = open_home(home=given.home)
        set_up(home.settings.log_level, home.settings.log_format)
        return serve(
            home, host=given.host, port=given.port, new_token=given.new_token, as_json=given.json
        )
    except PenstockError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
