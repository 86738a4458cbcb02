"""What an obstore error means, and the one clear error that a caller gets for it.

obstore tells most in its text: the HTTP status, the store's own code in the XML body, the kind of
network failure. The text itself goes no further: bodies may repeat keys and signed strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from penstock.base.errors import (
    AccessDenied,
    ClockSkew,
    NoCredentials,
    NoSuchBucket,
    PenstockError,
    StoreThrottled,
    StoreUnreachable,
    Unavailable,
)
from penstock.blobs.remote.address import Address
from penstock.blobs.remote.credentials import LOOKED_AT

Kind = Literal[
    "missing", "exists", "range", "bucket", "region", "denied", "clock", "credentials", "other",
    "throttled", "refused", "host", "slow", "broken", "failing",
]  # fmt: skip
_STATUS = re.compile(r"status code: (\d{3})|status: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_THROTTLES = {
    "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests",
    "ServerBusy", "RequestThrottled", "BandwidthLimitExceeded",
}  # fmt: skip
_BUCKETS = {"NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "ContainerBeingDeleted"}
_CLOCKS = {"RequestTimeTooSkewed", "RequestExpired"}
_REGIONS = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
_METADATA = ("169.254.169.254", "169.254.170.2", "metadata.google.internal", "/latest/api/token")


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed request.

    kind     from "missing" to "other" the store's answer stands; the rest is worth another try
    status   HTTP status, or None where there was no answer
    code     the store's own word, or ""
    """

    kind: Kind
    status: int | None = None
    code: str = ""

    @property
    def again(self) -> bool:
        """Whether another try may succeed."""
        return self.kind in ("throttled", "refused", "host", "slow", "broken", "failing")

    @property
    def doubtful(self) -> bool:
        """Whether a write may have happened all the same."""
        return self.kind in ("slow", "broken", "failing")

    @property
    def told(self) -> str:
        """For people: what was seen."""
        seen = {
            "refused": "connection refused",
            "host": "the host name is not known",
            "slow": "no answer in time",
            "broken": "the connection broke",
            "failing": "it fails inside (" + f"HTTP {self.status} {self.code}".rstrip() + ")",
            "throttled": "it asks for fewer requests",
        }
        return seen.get(self.kind, f"HTTP {self.status} {self.code}".rstrip())


def understand(error: BaseException) -> Failure:
    """Read an error of obstore, or a TimeoutError."""
    if isinstance(error, TimeoutError):
        return Failure("slow")
    text = str(error)
    status, code = _status(text), (_CODE.search(text) or ["", ""])[1]
    kind = type(error).__name__
    if any(place in text for place in _METADATA) or "MissingCredentials" in text:
        return Failure("credentials", status, code)
    if code in _BUCKETS:
        return Failure("bucket", status, code)
    if code in _CLOCKS:
        return Failure("clock", status, code)
    if code in _REGIONS or status in (301, 307, 308) or "BareRedirect" in text:
        return Failure("region", status, code)
    if code in _THROTTLES or status == 429:
        return Failure("throttled", status, code)
    if status is None and kind == "GenericError":
        return Failure(_network(text))
    if status in (409, 412) or kind in ("AlreadyExistsError", "PreconditionError"):
        # S3 says 409 while another conditional write is under way; Azure says it for "exists".
        racing = status == 409 and code != "BlobAlreadyExists"
        return Failure("failing" if racing else "exists", status, code)
    if isinstance(error, FileNotFoundError) or status == 404:
        return Failure("missing", status, code)
    if status == 416:
        return Failure("range", status, code)
    if status in (401, 403) or kind in ("PermissionDeniedError", "UnauthenticatedError"):
        return Failure("denied", status, code)
    if status is not None and (status >= 500 or status == 408 or code == "RequestTimeout"):
        return Failure("failing", status, code)
    return Failure("other", status, code or ("" if status else kind))


def _status(text: str) -> int | None:
    found = _STATUS.search(text)
    return int(found[1] or found[2]) if found else None


def _network(text: str) -> Kind:
    if "ConnectionRefused" in text:
        return "refused"
    if "dns error" in text:
        return "host"
    if "TimedOut" in text or "timed out" in text or "kind: Timeout" in text:
        return "slow"
    return "broken"


def give_up(failure: Failure, address: Address, tries: int, seconds: float) -> PenstockError:
    """The family's error for a failure that is final."""
    url = address.url
    facts = {"url": url, "status": failure.status, "store_code": failure.code}
    if failure.again:
        kind = StoreThrottled if failure.kind == "throttled" else StoreUnreachable
        times = f"{tries} {'try' if tries == 1 else 'tries'} in {seconds:.0f} s"
        return kind(
            f"the blob store {url} does not serve: {failure.told} ({times})",
            _AGAIN[failure.kind],
            cause=failure.kind,
            tries=tries,
            **facts,
        )
    if failure.kind == "credentials":
        return NoCredentials(
            f"there are no credentials for {url}",
            f"Set {LOOKED_AT[address.scheme]}; or ?anonymous=true for a public bucket.",
            **facts,
        )
    if failure.kind == "bucket":
        return NoSuchBucket(
            f'there is no bucket "{address.bucket}" ({failure.code}) for {url}',
            "Make it, or correct the setting `blobs`; Penstock makes no buckets.",
            bucket=address.bucket,
            **facts,
        )
    if failure.kind == "region":
        return NoSuchBucket(
            f'the bucket "{address.bucket}" lies in another region than was asked ({failure.told})',
            "Give its region: ?region=NAME in the URL, or AWS_REGION.",
            bucket=address.bucket,
            **facts,
        )
    if failure.kind == "clock":
        return ClockSkew(
            f"{url} does not accept this machine's time ({failure.code})",
            "Synchronise the clock (chrony, systemd-timesyncd), then run again.",
            **facts,
        )
    if failure.kind == "denied":
        return AccessDenied(
            f"{url} denies access ({failure.told})",
            "See that the key is right and may list the bucket and read, write and delete below "
            f"the prefix. Looked at: {LOOKED_AT[address.scheme]}.",
            **facts,
        )
    return Unavailable(
        f"{url} gave an answer that Penstock cannot use ({failure.told})",
        "See that the endpoint is an object store of this kind; docs/blobs.md names what it needs.",
        **facts,
    )


_AGAIN = {
    "refused": "See that the server runs and that `endpoint` has the right port.",
    "host": "See that `endpoint` and the bucket are spelt right and that DNS works here.",
    "slow": "See that the network reaches the store; a longer ?timeout= helps thin lines.",
    "broken": "See that the network reaches the store and that `endpoint` has the right scheme.",
    "failing": "The store itself fails: look at its status page or log, then run again.",
    "throttled": "Run fewer processes, lower ?connections=, or ask for a higher limit.",
}
