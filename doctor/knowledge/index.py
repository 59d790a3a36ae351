"""A package index, read politely: the simple API as JSON, and parts of files by range requests."""

import base64
import json
import os
import tarfile
import urllib.parse
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from doctor.knowledge.fetch import Answer, Fetcher
from doctor.knowledge.range_file import RangeFile
from doctor.knowledge.requires import source_requires, wheel_requires

DEFAULT = "https://pypi.org/simple"
_JSON = "application/vnd.pypi.simple.v1+json"
# The largest source distribution that is read for its metadata.
_LARGEST_WHOLE = 64 << 20
# Folders that wheels hold by mistake.
_NO_MODULES = {"tests", "test", "docs", "doc", "examples", "example", "benchmarks", "benchmark", "scripts", "setup"}


class IndexProblem(Exception):
    """The index could not be reached, or gave what cannot be read; the text says what to do, without credentials."""


@dataclass(frozen=True)
class File:
    """A file on the index.

    Args:
        name: its name.
        url: where it is.
        size: bytes; 0 where the index doesn't say.
        uploaded: when it came, ISO 8601; empty where the index doesn't say.
        requires_python: its Requires-Python.
        yanked: whether it was withdrawn.
        metadata: whether its METADATA lies beside it, at url + ".metadata".
    """

    name: str
    url: str
    size: int
    uploaded: str
    requires_python: str
    yanked: bool
    metadata: bool

    @property
    def is_wheel(self) -> bool:
        """Whether it is a wheel."""
        return self.name.endswith(".whl")

    @property
    def is_sdist(self) -> bool:
        """Whether it is a source distribution."""
        return self.name.endswith((".tar.gz", ".zip", ".tar.bz2", ".tgz"))


def address(given: str | None = None) -> str:
    """Return the address of the index: what is given, else what uv or pip were told, else PyPI."""
    for found in (given, *map(os.environ.get, ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"))):
        if found and found.strip():
            return found.strip().split("=", 1)[-1].rstrip("/") if "=http" in found else found.strip().rstrip("/")
    return DEFAULT


class Index:
    """A package index.

    Args:
        url: its simple API; None for what uv and pip use.
        cache: folder that keeps what the index said of projects, to ask again only for what is new; None for none.
    """

    def __init__(self, url: str | None = None, cache: Path | None = None) -> None:
        self._url = address(url)
        self._cache = cache
        self._fetcher = Fetcher()

    def files(self, project: str) -> list[File]:
        """Return the files of a project.

        Raises:
            IndexProblem: if the index cannot be reached, doesn't know the project or speaks no JSON.
        """
        page = f"{self._url}/{canonicalize_name(project)}/"
        known = self._cache / f"{canonicalize_name(project)}.json" if self._cache else None
        headers = {"Accept": _JSON}
        old = None
        if known and known.exists():
            old = json.loads(known.read_text(encoding="utf-8"))
            if old.get("etag") and old.get("page") == _shown(page):
                headers["If-None-Match"] = old["etag"]
        try:
            said = self._get(page, headers)
        except (OSError, ValueError) as problem:
            raise IndexProblem(_said(page, str(problem))) from None
        if said.status == 304 and old:
            return _files(old["answer"], page)
        if said.status == 404:
            raise IndexProblem(f"{_shown(page)}: the index has no project {project}")
        if said.status != 200:
            raise IndexProblem(_said(page, f"HTTP status {said.status}"))
        try:
            answer = json.loads(said.body)
            listed = _files(answer, page)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise IndexProblem(
                f"{_shown(page)} doesn't answer in JSON (PEP 691); give one that does by --index-url"
            ) from None
        tag = said.headers.get("etag")
        if known and tag:
            known.parent.mkdir(parents=True, exist_ok=True)
            kept = {"etag": tag, "page": _shown(page), "answer": answer}
            known.write_text(json.dumps(kept), encoding="utf-8")
        return listed

    def requires(self, file: File) -> tuple[str, ...] | None:
        """Return the Requires-Dist lines of a wheel or a source distribution; None where they cannot be read."""
        try:
            if file.metadata:
                return wheel_requires(self.read(file.url + ".metadata").decode("utf-8", "replace"))
            if file.is_wheel:
                archive = zipfile.ZipFile(self.open(file))
                name = next((name for name in archive.namelist() if name.endswith(".dist-info/METADATA")), None)
                return wheel_requires(archive.read(name).decode("utf-8", "replace")) if name else None
            if file.size > _LARGEST_WHOLE or not file.name.endswith((".tar.gz", ".tgz")):
                return None
            return source_requires(self.read(file.url))
        except (OSError, ValueError, zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError):
            return None

    def modules(self, file: File) -> tuple[str, ...]:
        """Return the top-level modules of a wheel, () where they cannot be read."""
        try:
            with zipfile.ZipFile(self.open(file)) as archive:
                names = archive.namelist()
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
            return ()
        firsts = {name.split("/")[0] for name in names if name.endswith((".py", ".so", ".pyd"))}
        found = {first.split(".")[0] for first in firsts if not first.endswith((".dist-info", ".data", ".libs"))}
        return tuple(sorted(name for name in found - _NO_MODULES if name.isidentifier()))

    def open(self, file: File) -> RangeFile:
        """Return a file to read parts of."""
        return RangeFile(lambda begin, end: self.read(file.url, begin, end), file.size)

    def read(self, url: str, start: int | None = None, end: int | None = None) -> bytes:
        """Return the bytes of a file, [start, end) of them where these are given.

        Raises:
            OSError: if they cannot be read.
        """
        wanted = {} if start is None else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        answer = self._get(url, wanted)
        if answer.status not in (200, 206):
            raise OSError(f"HTTP status {answer.status}")
        # A server that knows no parts sends the whole.
        return answer.body[start:end] if wanted and answer.status == 200 else answer.body

    def _get(self, url: str, headers: dict[str, str]) -> Answer:
        own = urllib.parse.urlsplit(self._url)
        if own.username and urllib.parse.urlsplit(url).hostname == own.hostname:
            pair = f"{urllib.parse.unquote(own.username)}:{urllib.parse.unquote(own.password or '')}"
            headers = {**headers, "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        return self._fetcher.get(_bare(url), headers)


def _files(answer: dict[str, Any], page: str) -> list[File]:
    """Return the files that an index's answer lists."""
    return [
        File(
            name=one["filename"],
            url=urllib.parse.urljoin(_bare(page), one["url"]),
            size=int(one.get("size") or 0),
            uploaded=one.get("upload-time") or "",
            requires_python=one.get("requires-python") or "",
            yanked=bool(one.get("yanked")),
            metadata=bool(one.get("core-metadata") or one.get("data-dist-info-metadata")),
        )
        for one in answer["files"]
    ]


def _bare(url: str) -> str:
    """Return a URL without credentials."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _shown(url: str) -> str:
    """Return a URL as it may be shown: without credentials and query."""
    return urllib.parse.urlsplit(_bare(url))._replace(query="", fragment="").geturl()


def _said(page: str, reason: str) -> str:
    """Return what went wrong, for a person."""
    return f"{_shown(page)} could not be read ({reason}): is there a network? Another index is named by --index-url"
