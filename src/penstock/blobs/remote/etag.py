"""What S3 calls an object's ETag, computed here, to compare content without reading it back."""

from __future__ import annotations

import hashlib


def etag_of(data: memoryview, part: int | None = None) -> str:
    """MD5 of the bytes; of an upload in parts: MD5 of the parts' MD5s, a dash, their number.

    data  of bytes
    part  bytes of a part; None: written in one request
    S3 encrypted with a customer's key, Google and Azure call something else an ETag: a value that
    differs proves nothing, one that is equal does.
    Source: AWS, "Checking object integrity for data uploads in Amazon S3".

    >>> etag_of(memoryview(b"abc"))
    '900150983cd24fb0d6963f7d28e17f72'
    """
    if part is None:
        return hashlib.md5(data, usedforsecurity=False).hexdigest()
    digests = [
        hashlib.md5(data[start : start + part], usedforsecurity=False).digest()
        for start in range(0, data.nbytes, part)
    ]
    whole = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
    return f"{whole}-{len(digests)}"
