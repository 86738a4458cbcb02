"""range_server.py FOLDER SEED: an object store to read from, as slow as one that is far away.

GET and HEAD of FOLDER/blobs/KEY under /bucket/KEY, with ranges. Every answer waits 50 ms, one in a
hundred a second. GET /counted: bytes sent of each key, as JSON; only answers that were sent whole
count. Prints its port. Ends when its parent does.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from pathlib import Path

FOLDER, CHANCE = Path(sys.argv[1]) / "blobs", random.Random(int(sys.argv[2]))
DELAY, SLOW, SLOW_DELAY = 0.05, 0.01, 1.0
SENT: Counter[str] = Counter()


def found(method, path, headers):
    """Status line, headers and body of an answer, and the key that its bytes count for."""
    if path == "/counted":
        return "200 OK", {}, json.dumps(SENT).encode(), ""
    file = FOLDER / path.split("?")[0].split("/", 2)[2]
    if not file.is_file():
        return "404 Not Found", {}, b"", ""
    size = file.stat().st_size
    told = {
        "ETag": f'"{file.name}"',
        "Last-Modified": "Tue, 24 Nov 2026 10:00:00 GMT",
        "Accept-Ranges": "bytes",
    }
    if method == "HEAD":
        return "200 OK", {**told, "Content-Length": size}, b"", ""
    start, end, status = 0, size, "200 OK"
    if asked := headers.get("range"):
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(size, int(last) + 1 if last else size)
        told["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        status = "206 Partial Content"
    with file.open("rb") as stream:
        stream.seek(start)
        return status, told, stream.read(end - start), path.split("?")[0]


async def serve(reader, writer):
    try:
        while line := await reader.readline():
            method, path, _ = line.decode().split(" ", 2)
            headers = {}
            while (line := await reader.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode().partition(":")
                headers[name.strip().lower()] = value.strip()
            status, told, body, key = found(method, path, headers)
            if path != "/counted":
                await asyncio.sleep(SLOW_DELAY if CHANCE.random() < SLOW else DELAY)
            if reader.at_eof():
                break  # nobody waits for it any more
            told = {"Content-Length": len(body), **told}
            head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
            writer.write(f"HTTP/1.1 {status}\r\n{head}\r\n".encode())
            writer.write(body)
            await writer.drain()
            if key:
                SENT[key] += len(body)
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
