"""The URL of an object store, read and checked; secrets never stand in it."""

from __future__ import annotations

import string
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean

SCHEMES = ("s3", "gs", "az")
_SHARED = ("endpoint", "anonymous", "deadline", "timeout", "connections")
_OPTIONS = {"s3": ("region", *_SHARED), "gs": _SHARED, "az": ("account", *_SHARED)}
_BUCKET = frozenset(string.ascii_lowercase + string.digits + "-._")
_PREFIX = frozenset(string.ascii_letters + string.digits + "-._=+/")  # read alike by all stores
_SECRETS = ("key", "secret", "token", "password", "signature", "credential")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a store is and how patient its clients are.

    scheme       s3, gs or az
    bucket       S3 and Google: the bucket; Azure: the container
    prefix       without slashes at its ends; "" is the whole bucket
    endpoint     of another server than the cloud's own; http or https
    region       S3; default: AWS_REGION, AWS_DEFAULT_REGION, the profile, us-east-1
    account      Azure's storage account
    anonymous    requests are not signed
    deadline     seconds for which the store may fail before a call gives up
    timeout      seconds for one request, its body included
    connections  requests at a time of one process
    """

    scheme: str
    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    account: str | None = None
    anonymous: bool = False
    deadline: float = 120.0
    timeout: float = 60.0
    connections: int = 32

    @property
    def url(self) -> str:
        """The one URL of this address; `parse` reads it."""
        given = {
            "endpoint": self.endpoint,
            "region": self.region,
            "account": self.account,
            "anonymous": "true" if self.anonymous else None,
        }
        for name in ("deadline", "timeout", "connections"):
            value = getattr(self, name)
            given[name] = None if value == getattr(_DEFAULT, name) else f"{value:g}"
        query = urlencode({k: v for k, v in given.items() if v is not None}, safe=":/")
        path = f"/{self.prefix}" if self.prefix else ""
        return f"{self.scheme}://{self.bucket}{path}{f'?{query}' if query else ''}"


_DEFAULT = Address("s3", "default")


def parse(url: str) -> Address:
    """Read the URL of an object store. Raises BadInput; what may be a secret is not repeated."""
    scheme, _, rest = url.partition("://")
    if "@" in rest:
        raise BadInput(
            f"a URL {scheme}://…@… has credentials in it",
            "Take them out; they belong into the environment, see docs/blobs.md.",
        )
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True))
    except ValueError:
        options = {}
        if "?" in url:
            raise _bad(url, "has options that cannot be read") from None
    bucket = parts.netloc
    if not bucket or set(bucket) - _BUCKET:
        raise _bad(url, "names no bucket")
    prefix = parts.path.strip("/")
    if prefix and any(part in ("", ".", "..") for part in prefix.split("/")):
        raise _bad(url, "has a prefix with empty or dotted parts")
    if parts.fragment or set(prefix) - _PREFIX:
        raise _bad(url, "has signs in its prefix beyond letters, digits, and - . _ = + /")
    return Address(scheme, bucket, prefix, **_checked(url, scheme, options))  # type: ignore[arg-type]


def _checked(url: str, scheme: str, options: dict[str, str]) -> dict[str, object]:
    for name in options:
        if name not in _OPTIONS[scheme]:
            fix = did_you_mean(name, _OPTIONS[scheme])
            if any(word in name.lower() for word in _SECRETS):
                fix = "Secrets belong into the environment, not into a URL; see docs/blobs.md."
            raise BadInput(f'a URL {scheme}://… has no option "{name}"', fix, option=name)
    found: dict[str, object] = dict(options)
    endpoint = options.get("endpoint")
    if endpoint is not None:
        where = urlsplit(endpoint)
        if where.scheme not in ("http", "https") or not where.hostname or where.username:
            raise _bad(url, "has an endpoint that is not http://HOST or https://HOST")
        found["endpoint"] = endpoint.rstrip("/")
    if "anonymous" in options:
        if options["anonymous"] not in ("true", "false"):
            raise _bad(url, "says neither true nor false to `anonymous`")
        found["anonymous"] = options["anonymous"] == "true"
    for name, kind, least in (
        ("deadline", float, 0.1),
        ("timeout", float, 0.1),
        ("connections", int, 1),
    ):
        if name in options:
            try:
                value = kind(options[name])
            except ValueError:
                raise _bad(url, f"has a `{name}` that is no number") from None
            if not least <= value <= 1e6:
                raise _bad(url, f"has a `{name}` below {least:g} or beyond all reason")
            found[name] = value
    return found


def _bad(url: str, what: str) -> BadInput:
    return BadInput(
        f'"{url}" {what}',
        "Write s3://BUCKET/PREFIX, with ?endpoint=http://HOST:PORT&region=NAME for other servers; "
        "gs://BUCKET/PREFIX; az://CONTAINER/PREFIX?account=NAME.",
        url=url,
    )
