"""A server of genome files with faults, and manifests that name its files."""

import hashlib
import http.server
import pathlib
import time

import numpy as np

from data_pipelines.assemblies import fetch
from data_pipelines.manifest import Assembly, Manifest, read_manifest, write_manifest

BODY = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
QUICK = {"pauses": (0.01, 0.01, 0.01), "timeout": 5.0}


class Server(http.server.ThreadingHTTPServer):
    """Files by path, with ranges; faults are taken from a list, one a request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: list = []
        self.requests: list[tuple[str, str | None]] = []
        self.ranges = True
        self.etags = True
        self.block_seconds = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, address):
        """A client that was killed is no news."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Quiet."""

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.requests.append((self.path, asked))
        fault = server.faults.pop(0) if server.faults else None
        if callable(fault):
            fault, _ = None, fault(server)
        if isinstance(fault, int):
            self.send_response(fault)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        current = self.headers.get("If-Range", etag) == etag
        start = 0
        if asked and server.ranges and current:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if server.etags:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        if fault == "cut":
            rest = rest[: len(rest) // 2]
        if fault == "lie":
            rest = bytes(reversed(rest))
        for at in range(0, len(rest), 10_000):
            self.wfile.write(rest[at : at + 10_000])
            time.sleep(server.block_seconds)
        if fault == "cut":
            self.close_connection = True
            self.connection.close()


def row(url: str, accession="GCF_1.1", body=BODY, **values) -> Assembly:
    values = {"checksum": f"sha256:{hashlib.sha256(body).hexdigest()}", "bytes": None} | values
    return Assembly(
        accession=accession,
        species="Escherichia coli",
        genus="Escherichia",
        url=url,
        **{"group": "bacteria", "split": "", "weight": 1.0, **values},
    )


def manifest(folder: pathlib.Path, *rows: Assembly) -> Manifest:
    write_manifest(folder / "m.tsv", rows)
    return read_manifest(folder / "m.tsv")


def get(folder: pathlib.Path, *rows: Assembly, mirrors=(), workers=4):
    return fetch(manifest(folder, *rows), folder / "out", mirrors=mirrors, workers=workers, **QUICK)


def files(folder: pathlib.Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())
