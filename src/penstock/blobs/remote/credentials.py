"""Which keys sign the requests: what obstore finds by itself, and AWS's profile files.

obstore knows the environment, web identities, containers and instances, not the files that
`aws configure` writes; those are read here. No secret is kept, shown or put into a URL: it goes
from the file to the client.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

LOOKED_AT = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN), a profile in "
    "~/.aws/credentials (AWS_PROFILE), AWS_WEB_IDENTITY_TOKEN_FILE, or a role of this container or "
    "instance",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_SERVICE_ACCOUNT, GOOGLE_SERVICE_ACCOUNT_KEY, or "
    "a service account of this instance",
    "az": "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_KEY, or "
    "AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID, or a managed identity",
}
_FROM_ELSEWHERE = (
    "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # fmt: skip


def aws_profile(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Keys and region of AWS's profile files, where the environment does not say them.

    Returns obstore's names: access_key_id, secret_access_key, token, region; empty when there is
    nothing to add.
    """
    given = os.environ if environment is None else environment
    name = given.get("AWS_PROFILE") or given.get("AWS_DEFAULT_PROFILE") or "default"
    found: dict[str, str] = {}
    if not any(given.get(each) for each in _FROM_ELSEWHERE):
        file = given.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
        section = _section(file, name)
        if "aws_access_key_id" in section and "aws_secret_access_key" in section:
            found["access_key_id"] = section["aws_access_key_id"]
            found["secret_access_key"] = section["aws_secret_access_key"]
            if "aws_session_token" in section:
                found["token"] = section["aws_session_token"]
    if not (given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION")):
        title = name if name == "default" else f"profile {name}"
        region = _section(given.get("AWS_CONFIG_FILE", "~/.aws/config"), title).get("region")
        if region:
            found["region"] = region
    return found


def _section(file: str, name: str) -> Mapping[str, str]:
    reader = configparser.RawConfigParser()
    try:
        reader.read(Path(file).expanduser())
    except (configparser.Error, UnicodeDecodeError, OSError):
        return {}
    return dict(reader[name]) if reader.has_section(name) else {}
