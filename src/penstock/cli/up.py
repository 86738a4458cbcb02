"""`penstock up`: the only resident process."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.base.settings import UP_PORT
from penstock.cli.frame import command, home, options


def register(app: typer.Typer) -> None:
    """Put the command beside the nouns."""

    @command(
        app,
        "up",
        ["penstock up", "penstock up --port 8800", "penstock up --host 0.0.0.0 --new-token"],
    )
    def up(
        host: Annotated[
            str,
            typer.Option(
                metavar="HOST", help="Where to listen; beyond loopback a token is needed."
            ),
        ] = "127.0.0.1",
        port: Annotated[
            int, typer.Option(min=0, max=65535, metavar="PORT", help="0 takes a free one.")
        ] = UP_PORT,
        new_token: Annotated[
            bool, typer.Option("--new-token", help="Make a token, show it once, keep its hash.")
        ] = False,
    ) -> int:
        """Serve the HTTP API, adopt interrupted runs, keep deployments up, until Ctrl-C."""
        from penstock.server.up import serve

        return serve(home(), host=host, port=port, new_token=new_token, as_json=options.json)
