"""A package index on this machine: the simple API as JSON, files in parts, and wheels that are made on the spot."""

import io
import json
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def wheel(project: str, version: str, files: Mapping[str, str], requires: tuple[str, ...] = ()) -> bytes:
    """Return a wheel of Python files by their path."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        lines = "".join(f"Requires-Dist: {line}\n" for line in requires)
        archive.writestr(
            f"{project}-{version}.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n{lines}\nAbout it.\n",
        )
    return made.getvalue()


def source(project: str, version: str, files: Mapping[str, str]) -> bytes:
    """Return a source distribution of files by their path below its folder."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{project}-{version}/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return made.getvalue()


class LocalIndex:
    """An index whose files and answers a test may change.

    Args:
        parts: whether it sends parts of files.
    """

    def __init__(self, parts: bool = True) -> None:
        self.parts = parts
        self.files: dict[str, dict[str, bytes]] = {}
        self.about: dict[str, dict[str, object]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.sent = 0
        self.url = ""

    def add(self, name: str, contents: bytes, **about: object) -> None:
        """Add a file, with what the index says of it: upload_time, requires_python, yanked."""
        project = re.split(r"-\d", name)[0].replace("_", "-").lower()
        self.files.setdefault(project, {})[name] = contents
        self.about[name] = about

    def page(self, project: str) -> dict[str, object]:
        """Return what the index says of a project."""
        listed = []
        for name, contents in self.files[project].items():
            about = self.about[name]
            listed.append(
                {
                    "filename": name,
                    "url": f"../../files/{project}/{name}",
                    "size": len(contents),
                    "upload-time": about.get("upload_time", "2024-01-02T03:04:05Z"),
                    "requires-python": about.get("requires_python"),
                    "yanked": about.get("yanked", False),
                    "hashes": {},
                }
            )
        return {"meta": {"api-version": "1.1"}, "name": project, "files": listed}


@contextmanager
def serving(index: LocalIndex) -> Iterator[LocalIndex]:
    """Serve an index while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            index.asked.append((self.path, dict(self.headers)))
            words = self.path.strip("/").split("/")
            if words[0] == "simple" and words[1] in index.files:
                body = json.dumps(index.page(words[1])).encode()
                tag = f'"{hash(body)}"'
                if self.headers.get("If-None-Match") == tag:
                    self._send(304, b"", {})
                else:
                    self._send(200, body, {"ETag": tag, "Content-Type": "application/vnd.pypi.simple.v1+json"})
            elif words[0] == "files" and words[1] in index.files and words[2] in index.files[words[1]]:
                body = index.files[words[1]][words[2]]
                wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                if wanted and index.parts:
                    end = int(wanted[2]) + 1 if wanted[2] else len(body)
                    self._send(206, body[int(wanted[1]) : end], {})
                else:
                    self._send(200, body, {})
            else:
                self._send(404, b"not here", {})

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            index.sent += len(body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    index.url = f"http://127.0.0.1:{server.server_address[1]}/simple"
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()
