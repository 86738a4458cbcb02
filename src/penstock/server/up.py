"""`penstock up`: the server, the keeper of deployments and the adopter of runs, in one process."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn

from penstock.base.errors import BadInput, PenstockError, Refused, Unavailable
from penstock.base.log import facts, logger
from penstock.base.settings import UP_PORT
from penstock.home.local import LocalHome
from penstock.home.machine import listener
from penstock.home.port import Home
from penstock.server import tokens
from penstock.server.app import create_app
from penstock.server.guard import is_loopback

log = logger("server")

HOST = "127.0.0.1"
_ADOPT = 5.0  # seconds between looks for interrupted runs
_PATIENCE = 5  # seconds for answers that are being sent when the server ends


def serve(
    home: LocalHome,
    *,
    host: str = HOST,
    port: int = UP_PORT,
    new_token: bool = False,
    as_json: bool = False,
) -> int:
    """Answer until SIGINT or SIGTERM; returns the exit code 0. Call it from the main thread.

    host, port  where to listen; port 0 takes a free one. Beyond loopback a token is asked for
    new_token   make a token, show it once, keep its hash in the home
    as_json     say where it listens as one JSON object

    Owns the HTTP server, the keeper of deployments with its replicas, and the thread that adopts
    interrupted runs. All end with it: replicas are drained on a signal, and killed by the kernel
    when this process is. Adopted runs are detached: they go on without it.

    Raises Refused (no token beyond loopback), Unavailable (the port is taken), BadInput.
    """
    shown, hashed = _token(home, new_token)
    listening = _listen(host, port)
    with listening, suppress(KeyboardInterrupt):
        loopback = is_loopback(listening.getsockname()[0])
        if not loopback and hashed is None:
            raise Refused(
                f"beyond loopback ({host}) everybody on the network could steer this home",
                "Make a token first: `penstock up --new-token`, or set `token`.",
                host=host,
            )
        closing = threading.Event()
        app = create_app(home, token=hashed, loopback=loopback, closing=closing)
        server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_PATIENCE,
            )
        )
        with _ending(server, closing), home.keep_deployments(), _adopting(home, closing):
            _announce(listening, home, shown, as_json, needs_token=hashed is not None)
            server.run(sockets=[listening])
            closing.set()
    log.info("stopped")
    return 0


class _Server(uvicorn.Server):
    """Signals are ours: uvicorn would raise them again before deployments are drained."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def _ending(server: uvicorn.Server, closing: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM end the server, a second one without waiting for answers."""

    def _end(number: int, frame: object) -> None:
        server.force_exit = server.should_exit
        server.should_exit = True
        closing.set()

    before = {each: signal.signal(each, _end) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _adopting(home: Home, closing: threading.Event) -> Iterator[None]:
    """A thread that starts interrupted, detached runs again; it ends with the context."""

    def _adopt() -> None:
        troubled = False
        while True:
            try:
                for run in home.adopt():
                    log.info("adopted a run", extra=facts(run=run))
                troubled = False
            except PenstockError as error:
                if not troubled:
                    log.warning(error.what, extra=facts(code=error.code, fix=error.fix))
                troubled = True
            except Exception:
                log.error("adoption met a fault of its own; it goes on", exc_info=True)
            if closing.wait(_ADOPT):
                return

    thread = threading.Thread(target=_adopt, name="adopt", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join()


def _token(home: LocalHome, new_token: bool) -> tuple[str | None, str | None]:
    """(the token to show, the hash to ask for); the settings' token wins over the home's."""
    own = home.settings.token
    if own is not None and new_token:
        raise BadInput(
            "the settings give a token, and a new one is asked for",
            "Take `token` out of the settings, or leave --new-token out.",
        )
    if own is not None:
        return None, tokens.hash_token(tokens.check_own(own))
    if new_token:
        made = tokens.make(home.layout.server_token)
        return made, tokens.hash_token(made)
    return None, tokens.kept(home.layout.server_token)


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises BadInput for a host that is none of ours, Unavailable if taken."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise BadInput(
            f'"{host}" is no address: {error}', "Take 127.0.0.1, or 0.0.0.0 for all.", host=host
        ) from None
    made = socket.socket(family, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
        made.listen(128)  # so that whoever reads where it listens can connect at once
    except OSError as error:
        made.close()
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error.strerror}{_by(port)}",
            "Is another `penstock up` running? Stop it, or take --port 0.",
            host=host,
            port=port,
        ) from None
    return made


def _by(port: int) -> str:
    """Who listens there, as far as it can be seen."""
    found = listener(port) if port else None
    return "" if found is None else f", by {found.name} (pid {found.pid})"


def _announce(
    listening: socket.socket, home: LocalHome, token: str | None, as_json: bool, needs_token: bool
) -> None:
    """Where it listens, on stdout; the only place where a token is ever shown."""
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if as_json:
        said = {"url": url, "home": home.where, "pid": os.getpid(), "token": token}
        text = json.dumps({**said, "needs_token": needs_token})
    else:
        text = f"penstock up   {url}   home {home.where}   Ctrl-C ends it"
        if token is not None:
            text += f"\ntoken         {token}\n              shown once; only its hash is kept"
        if not is_loopback(host):
            text += "\nwarning       no TLS here: put a proxy that has it in front"
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
