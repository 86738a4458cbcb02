"""Where an agent listens: a socket in its private folder, or a port for a controller elsewhere.

A port is served over TLS with a certificate made for this agent's life, which only whoever started
it is told of, with a token. Neither is written anywhere but into a file of its private folder.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import grpc

from penstock.jobs import rpc
from penstock.jobs.neighbours import reads
from penstock.jobs.rpc import Door, Message

T = TypeVar("T")
R = TypeVar("R")
FILE = "door.json"  # in the runtime folder: how to reach the agent
_DAYS = 3650  # for which a certificate is good: no run is to end because of it


def open_for(
    spec: dict[str, Any],
    session: Callable[[Iterator[Message], grpc.ServicerContext], Iterator[Message]],
    files: Callable[[Message, grpc.ServicerContext], Iterator[Message]],
) -> grpc.Server:
    """Serve what the spec asks for: "socket", or "elsewhere" {"host": an address of this machine}.
    Raises Unavailable. The caller stops it."""
    if not spec.get("elsewhere"):
        return rpc.serve(f"unix:{spec['socket']}", session, files)[0]
    host, token = spec["elsewhere"]["host"], secrets.token_urlsafe(32)
    key, certificate = _own_certificate()
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    address = Door(host, 0, "", "").address
    server, port = rpc.serve(address, _guarded(session, token), _guarded(files, token), credentials)
    _tell(Path(spec["runtime"]), Door(host, port, certificate.decode(), token))
    return server


def open_for_neighbours(spec: dict[str, Any], read: reads.Read) -> tuple[grpc.Server, Door] | None:
    """A port beside that of a controller elsewhere, with a certificate and a token of its own: who
    has them may read, and command nothing. None where the agent has no neighbours. Raises
    Unavailable. The caller stops the server."""
    if not spec.get("elsewhere"):
        return None
    host, token = spec["elsewhere"]["host"], secrets.token_urlsafe(32)
    key, certificate = _own_certificate()
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    address = Door(host, 0, "", "").address
    server, port = reads.serve(address, _guarded(read, token), credentials)
    return server, Door(host, port, certificate.decode(), token)


def _guarded(
    call: Callable[[T, grpc.ServicerContext], Iterator[R]], token: str
) -> Callable[[T, grpc.ServicerContext], Iterator[R]]:
    """Only for whoever shows the token."""
    wanted = hashlib.sha256(f"Bearer {token}".encode()).digest()

    def asked(request: T, context: grpc.ServicerContext) -> Iterator[R]:
        shown = dict(context.invocation_metadata()).get("authorization", "")
        if not hmac.compare_digest(hashlib.sha256(str(shown).encode()).digest(), wanted):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "a token is asked for")
        return call(request, context)

    return asked


def _tell(runtime: Path, door: Door) -> None:
    draft = runtime / f"{FILE}.new"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(json.dumps(asdict(door)))
    draft.replace(runtime / FILE)


def _own_certificate() -> tuple[bytes, bytes]:
    """(key, certificate) as PEM, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, rpc.NAME)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(rpc.NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, form, plain), made.public_bytes(pem)
