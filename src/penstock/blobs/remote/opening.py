"""obstore's store for an address: end point, signature, time-outs."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from penstock.blobs.remote.address import Address
from penstock.blobs.remote.credentials import aws_profile
from penstock.blobs.remote.failures import Failure, give_up

_CONNECT = 5.0  # seconds
_STALL = 20.0  # seconds without a byte
_KINDS = {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": (),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}


def open_store(obstore: Any, address: Address, retries: int) -> Any:
    """A store object; no request is sent yet. Raises the family's error when obstore refuses.

    retries  of each request by obstore itself, which nobody counts
    """
    given = [address.endpoint, *(os.environ.get(name) for name in _ENDPOINTS[address.scheme])]
    endpoint = next((each for each in given if each), "")
    client = {
        "allow_http": endpoint.startswith("http://"),
        "timeout": timedelta(seconds=address.timeout),
        "connect_timeout": timedelta(seconds=min(_CONNECT, address.timeout)),
        "read_timeout": timedelta(seconds=min(_STALL, address.timeout)),
        "user_agent": "penstock",
    }
    retry = {
        "max_retries": retries,
        "retry_timeout": timedelta(seconds=address.deadline),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=5),
        },
    }
    try:
        return getattr(obstore._store, _KINDS[address.scheme])(
            address.bucket,
            prefix=address.prefix or None,
            config=_config(address),
            client_options=client,
            retry_config=retry,
        )
    except Exception as error:  # noqa: BLE001 - obstore's, whatever they are
        unnamed = "redential" in str(error) or "ccount" in str(error)
        failure = Failure("credentials" if unnamed else "other")
        raise give_up(failure, address, 1, 0.0) from None


def _config(address: Address) -> dict[str, Any]:
    """obstore's names; what is not here it takes from the environment."""
    given: dict[str, Any] = {
        "skip_signature": address.anonymous or None,
        "base_url" if address.scheme == "gs" else "endpoint": address.endpoint,
        "region": address.region,
        "account_name": address.account,
    }
    config = {name: value for name, value in given.items() if value is not None}
    if address.scheme == "s3":
        # Not every server has the request that deletes many objects; we delete one at a time.
        return {**aws_profile(), **config, "disable_bulk_delete": True}
    return config
