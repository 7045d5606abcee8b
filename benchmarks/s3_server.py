"""A folder as an S3 bucket over HTTP/1.1, each answer late by a fixed time; costs little CPU.

ListObjectsV2 (prefix, start-after, continuation-token, max-keys), GET with Range, HEAD. Signatures
are not checked, and there is one bucket, whatever its name. Prints its port, then serves until it
is terminated.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
from bisect import bisect_left, bisect_right
from email.utils import formatdate
from itertools import takewhile
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

MAX_KEYS = 1000
REASONS = {200: "OK", 206: "Partial Content", 404: "Not Found", 416: "Range Not Satisfiable"}


class Bucket:
    """The files of a folder, listed once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, os.stat_result] = {}
        for path in folder.rglob("*"):
            if path.is_file():
                self.files[path.relative_to(folder).as_posix()] = path.stat()
        self.keys = sorted(self.files)

    def etag(self, key: str) -> str:
        """Of size and time; real ones are digests of the bytes."""
        status = self.files[key]
        return f'"{status.st_size:x}-{status.st_mtime_ns:x}"'

    def listing(self, query: dict[str, str]) -> bytes:
        """One page as XML."""
        prefix, limit = query.get("prefix", ""), min(int(query.get("max-keys", MAX_KEYS)), MAX_KEYS)
        after = query.get("continuation-token") or query.get("start-after", "")
        start = max(bisect_right(self.keys, after), bisect_left(self.keys, prefix))
        some = self.keys[start : start + limit + 1]
        found = list(takewhile(lambda key: key.startswith(prefix), some))
        page, truncated = found[:limit], len(found) > limit
        name = quote if query.get("encoding-type") == "url" else escape
        parts = [
            f"<Contents><Key>{name(key)}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{escape(self.etag(key))}</ETag><Size>{self.files[key].st_size}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for key in page
        ]
        if truncated:
            parts.append(f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>")
        if query.get("encoding-type") == "url":
            parts.append("<EncodingType>url</EncodingType>")
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>bucket</Name><Prefix>{name(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
            f"<MaxKeys>{limit}</MaxKeys><IsTruncated>{str(truncated).lower()}</IsTruncated>"
            f"{''.join(parts)}</ListBucketResult>"
        ).encode()


class Connection(asyncio.Protocol):
    """One client: requests one after the other, each answered after the latency."""

    def __init__(self, bucket: Bucket, latency_s: float) -> None:
        self.bucket, self.latency_s = bucket, latency_s
        self.buffer = b""
        self.waiting = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the way to answer."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Collects until the header of a request is there; requests have no body."""
        self.buffer += data
        self._next()

    def _next(self) -> None:
        if self.waiting or b"\r\n\r\n" not in self.buffer:
            return
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        self.waiting = True
        loop = asyncio.get_running_loop()
        loop.call_later(self.latency_s, self._answer, head.decode("latin-1"))

    def _answer(self, head: str) -> None:
        if self.transport.is_closing():
            return
        method, target, _ = head.split("\r\n", 1)[0].split(" ", 2)
        parts = urlsplit(target)
        key = unquote(parts.path).lstrip("/").partition("/")[2]
        if not key:
            body = self.bucket.listing(dict(parse_qsl(parts.query, keep_blank_values=True)))
            self._send(method, 200, body, "Content-Type: application/xml\r\n")
        elif key in self.bucket.files:
            self._object(method, key, head)
        else:
            self._send(method, 404, b"<Error><Code>NoSuchKey</Code></Error>", "")
        self.waiting = False
        self._next()

    def _object(self, method: str, key: str, head: str) -> None:
        status = self.bucket.files[key]
        about = (
            f"ETag: {self.bucket.etag(key)}\r\nAccept-Ranges: bytes\r\n"
            f"Last-Modified: {formatdate(status.st_mtime, usegmt=True)}\r\n"
        )
        size, code, start, end = status.st_size, 200, 0, status.st_size
        if wanted := re.search(r"\r\nrange: *bytes=(\d*)-(\d*)", head, re.IGNORECASE):
            start, end = _span(wanted[1], wanted[2], size)
            if start >= end:
                self._send(method, 416, b"<Error><Code>InvalidRange</Code></Error>", "")
                return
            code = 206
            about += f"Content-Range: bytes {start}-{end - 1}/{size}\r\n"
        if method == "HEAD":
            self._send(method, code, b"", about, end - start)
            return
        with (self.bucket.folder / key).open("rb", buffering=0) as file:
            file.seek(start)
            self._send(method, code, file.read(end - start), about)

    def _send(self, method: str, code: int, body: bytes, about: str, size: int = -1) -> None:
        length = len(body) if size < 0 else size
        head = f"HTTP/1.1 {code} {REASONS[code]}\r\n{about}Content-Length: {length}\r\n\r\n"
        self.transport.write(head.encode())
        if method != "HEAD":
            self.transport.write(body)


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    """Start and end (half-open) of `bytes=first-last` or `bytes=-last`."""
    if not first:
        return max(0, size - int(last or 0)), size
    return int(first), min(size, int(last) + 1 if last else size)


async def serve(folder: Path, latency_s: float, port: int) -> None:
    """Answers until the process is terminated."""
    bucket = Bucket(folder)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(bucket, latency_s), "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serves a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    options = parser.parse_args()
    asyncio.run(serve(options.folder, options.latency_ms / 1e3, options.port))


if __name__ == "__main__":
    main()
