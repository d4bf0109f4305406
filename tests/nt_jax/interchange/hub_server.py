"""A local hub: serves folders `OWNER/NAME` under a root the way the hub serves repositories."""

import contextlib
import hashlib
import http.server
import json
import pathlib
import re
import threading
from collections.abc import Iterator

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _handler(root: pathlib.Path, asked: list[str]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_) -> None:
            pass

        def _answer(self, body: bool) -> None:
            asked.append(self.path)
            path = self.path.partition("?")[0]
            listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/(revision|tree)/[^/]+)?", path)
            file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
            if listing and (root / listing[1]).is_dir():
                files = sorted(p for p in (root / listing[1]).rglob("*") if p.is_file())
                names = [str(p.relative_to(root / listing[1])) for p in files]
                if listing[3] == "tree":
                    content = [
                        {"type": "file", "path": name, "size": p.stat().st_size, "oid": "0" * 40}
                        for name, p in zip(names, files, strict=True)
                    ]
                else:
                    siblings = [{"rfilename": name} for name in names]
                    content = {"id": listing[1], "sha": COMMIT, "siblings": siblings}
                self._send(200, json.dumps(content).encode(), body, "application/json")
            elif file and (root / file[1] / file[2]).is_file():
                data = (root / file[1] / file[2]).read_bytes()
                self._send(200, data, body, "application/octet-stream")
            else:
                self._send(404, b"{}", body, "application/json", "RepoNotFound")

        def _send(self, code, data, body, kind, error=None) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            if error:
                self.send_header("X-Error-Code", error)
            self.end_headers()
            if body:
                self.wfile.write(data)

    return Handler


@contextlib.contextmanager
def serve(root: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """Address of a running server, and the list of the paths asked of it."""
    asked: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(root, asked))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
