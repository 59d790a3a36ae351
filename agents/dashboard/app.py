"""The page's server: shows the run, takes answers, tells open pages when something has changed."""

import asyncio
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from html import escape
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from agents.dashboard.explaining import Explaining
from agents.dashboard.pictures import node_name
from agents.dashboard.view import View, clock, fields_of, span
from agents.effects import EffectError
from agents.explanation import ExplanationError, explanation_html
from agents.forks import ForkError
from agents.questions import AnswerError, Answers
from agents.task.folder import TaskFolder
from agents.task.repository import RepositoryError
from agents.task.task_file import TaskError
from data.data_error import DataError
from storage.files import write_json

_HERE = Path(__file__).resolve().parent
_KEPT = ("rounds", "costs", "changes")  # parts that are drawn anew only when their mark is another
PARTS = ("now", "question", "rounds", "costs", "changes", "log")
_COOKIE = "tune_key"
_LARGEST = 1 << 16  # bytes of a form
_DIGITS = 15  # of a number in an address
_LOOK, _BEAT = 0.3, 15.0  # seconds between looks for changes, and at most between two lines to an open page
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Starts(Protocol):
    """Starts a worker that drives a thread, where none runs; `move` takes it from another thread."""

    def start(self, thread: str, move: bool = False) -> None:
        """Start it."""

    def started(self) -> str:
        """Return the thread of one that was started and has not ended; "" for none."""


def build_app(folder: TaskFolder, host: str, key: str | None, worker: Starts) -> Starlette:
    """Build the page's server.

    Args:
        folder: the task's folder; its thread is shown first.
        host: address that it listens at; on this machine alone, only its names are answered to.
        key: key that a visitor must have; None where only this machine can visit.
        worker: drives the run.
    """
    pages = _Pages(folder, worker)
    pages.of(folder.thread).warm()
    routes = [
        route
        for base in ("", "/thread/{thread}")
        for route in (
            Route(f"{base}/", pages.shown(_Page.whole)),
            Route(f"{base}/part/{{name}}", pages.shown(_Page.part)),
            Route(f"{base}/rows", pages.shown(_Page.rows)),
            Route(f"{base}/log", pages.shown(_Page.earlier)),
            Route(f"{base}/answer", pages.done(_Page.answer), methods=["POST"]),
            Route(f"{base}/start", pages.done(_Page.start), methods=["POST"]),
            Route(f"{base}/explain", pages.done(_Page.explain), methods=["POST"]),
            Route(f"{base}/events", pages.done(_Page.events)),
        )
    ]
    static = Mount("/static", StaticFiles(directory=_HERE / "static"))
    # A file of the task that somebody has broken meanwhile is told where the page would be.
    broken = dict.fromkeys((TaskError, DataError, RepositoryError, EffectError, OSError), _told_broken)
    app = Starlette(routes=[*routes, static], exception_handlers={**broken, ForkError: _told_missing})
    app.add_middleware(BaseHTTPMiddleware, dispatch=_Guard(host, key).dispatch)
    return app


class _Guard:
    """Lets in who has the key; on this machine, who calls it by one of its names (no page of another site)."""

    def __init__(self, host: str, key: str | None) -> None:
        self._names = {"127.0.0.1", "localhost", "[::1]"} if host in ("127.0.0.1", "::1", "localhost") else None
        self._key = key

    async def dispatch(self, request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        """Answer a request, or refuse it."""
        name = request.headers.get("host", "").rsplit(":", 1)[0]
        if self._names is not None and name not in self._names:
            return Response(f"this page is not called {name}\n", 421, media_type="text/plain")
        given = request.query_params.get("key") or request.cookies.get(_COOKIE) or ""
        if self._key is not None and not hmac.compare_digest(given.encode(), self._key.encode()):
            return Response("a key is needed: open the address that `tune.py serve` has shown\n", 401,
                            media_type="text/plain")  # fmt: skip
        if self._key is not None and "key" in request.query_params:
            answer: Response = RedirectResponse(request.url.path, 303)  # so that the key doesn't stay in the address
            answer.set_cookie(_COOKIE, self._key, httponly=True, samesite="strict")
        else:
            answer = await go_on(request)
        answer.headers["Content-Security-Policy"] = _POLICY
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Referrer-Policy"] = "no-referrer"
        return answer


class _Pages:
    """The page of each thread of a run, made when it is first asked for."""

    def __init__(self, folder: TaskFolder, worker: Starts) -> None:
        self._folder, self._worker = folder, worker
        self._made: dict[str, _Page] = {}
        self._making = threading.Lock()

    def of(self, thread: str) -> "_Page":
        """Return the page of a thread.

        Raises:
            ForkError: there is no such thread.
        """
        with self._making:
            if thread not in self._made:
                self._made[thread] = _Page(TaskFolder(self._folder.path, thread), self, self._worker)
            return self._made[thread]

    def address(self, thread: str) -> str:
        """Return what the addresses of a thread's page begin with: nothing for that which is served first."""
        return "" if thread == self._folder.thread else f"/thread/{thread}"

    def shown(self, draw: "Callable[[_Page, Request], Response]") -> Callable[[Request], Response]:
        """Return what answers a request by the page of its thread."""

        def answer(request: Request) -> Response:
            return draw(self.of(request.path_params.get("thread", self._folder.thread)), request)

        return answer

    def done(self, do: "Callable[[_Page, Request], Awaitable[Response]]") -> Callable[[Request], Awaitable[Response]]:
        """Return the same for what goes on beside other requests."""

        async def answer(request: Request) -> Response:
            page = await asyncio.to_thread(self.of, request.path_params.get("thread", self._folder.thread))
            return await do(page, request)

        return answer


class _Page:
    def __init__(self, folder: TaskFolder, pages: _Pages, worker: Starts) -> None:
        self._folder, self._view, self._pages, self._worker = folder, View(folder, worker.started), pages, worker
        self._base = pages.address(folder.thread)
        self._answers, self._explaining = Answers(folder.answers), Explaining(folder)
        self._templates = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True)
        self._templates.filters |= {"clock": clock, "span": span, "node_name": node_name}
        self._token = _token(folder.kept / "page.json")
        self._marks: tuple[float, dict[str, str]] | None = None
        self._looking = asyncio.Lock()
        self._pieces: dict[str, tuple[str, str]] = {}

    def whole(self, request: Request) -> Response:
        """Draw the page."""
        return self._drawn("page.html", **self._rows(request))

    def part(self, request: Request) -> Response:
        """Draw one part of the page anew."""
        name = request.path_params["name"]
        if name not in PARTS:
            return Response(f"there is no part {name}; there are {', '.join(PARTS)}\n", 404, media_type="text/plain")
        return self._drawn(f"{name}.html")

    def rows(self, request: Request) -> Response:
        """Draw a page of rows; the whole page where a browser without scripts asks."""
        if request.headers.get("hx-request"):
            return self._drawn("rows.html", **self._rows(request))
        return self._drawn("page.html", **self._rows(request))

    def earlier(self, request: Request) -> Response:
        """Draw lines of the log before those that are shown."""
        lines, begin = self._view.log(_number(request.query_params.get("before", "")))
        return self._drawn("log_lines.html", lines=lines, begin=begin)

    async def answer(self, request: Request) -> Response:
        """Take an answer."""
        form = await self._form(request)
        if form is None:
            return _refused(request, "this page is too old: reload it, and answer again", 403)
        question = self._view.standing().question
        sent = form.get("question", [""])[0]
        if question is None or question.id != sent:
            return self._late(request, "This was answered already, here or elsewhere")
        try:
            self._answers.give(question, fields_of(question, form), "person", form.get("digest", [""])[0])
        except AnswerError as error:
            return self._late(request, str(error))
        other = self._view.elsewhere()
        # A thread that trains goes on; one that waits for its own answer lets this one have the task.
        waits = bool(other) and await asyncio.to_thread(lambda: self._pages.of(other).asks())
        self._worker.start(self._folder.thread, move=waits)
        return self._back(request)

    async def start(self, request: Request) -> Response:
        """Start the worker, where none runs."""
        if await self._form(request) is None:
            return _refused(request, "this page is too old: reload it", 403)
        self._worker.start(self._folder.thread, move=True)
        return self._back(request)

    def asks(self) -> bool:
        """Return whether its thread waits for a person."""
        return self._view.question() is not None

    async def explain(self, request: Request) -> Response:
        """Show which words of a row carry its loss, and what the prompt's words do to it."""
        form = await self._form(request)
        if form is None:
            return _refused(request, "this page is too old: reload it", 403)
        try:
            found = await self._explaining.of(form.get("row", [""])[0])
        except ExplanationError as error:
            return _refused(request, str(error), 409)
        whole = not request.headers.get("hx-request")
        return self._drawn("explained.html", found=found, words=Markup(explanation_html(found)), whole=whole)

    async def events(self, request: Request) -> Response:
        """Tell an open page whenever something has changed."""
        return StreamingResponse(self._changes(), media_type="text/event-stream",
                                 headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})  # fmt: skip

    async def _changes(self) -> AsyncIterator[str]:
        # All marks come each time, the first at once: who comes back after a restart knows what was missed.
        seen: dict[str, str] = {}
        silent = 0.0
        yield "retry: 1000\n\n"
        while True:
            marks = await self._looked()
            if marks != seen:
                seen, silent = marks, 0.0
                yield f"data: {json.dumps(marks)}\n\n"
            elif silent >= _BEAT:
                silent = 0.0
                yield ": \n\n"
            await asyncio.sleep(_LOOK)
            silent += _LOOK

    async def _looked(self) -> dict[str, str]:
        """Return the marks of all parts; one look does for all pages that are open."""
        async with self._looking:
            if self._marks is None or time.monotonic() > self._marks[0] + _LOOK / 2:
                marks = await asyncio.to_thread(self._view.marks)
                self._marks = (time.monotonic(), marks)
            return self._marks[1]

    def _rows(self, request: Request) -> dict[str, object]:
        asked = request.query_params
        part = "test" if asked.get("part") == "test" else "train"
        page, find = _number(asked.get("page", "")) or 1, asked.get("find", "")
        rows, count, pages = self._view.rows(part, page, find)
        return {"part": part, "page": min(page, pages), "find": find, "rows": rows, "count": count, "pages": pages}

    def warm(self) -> None:
        """Draw all parts once, so that the first who comes need not wait for it."""
        for name in _KEPT:
            self._piece(name)

    def _piece(self, name: str) -> Markup:
        """Return a part that only changes with its mark; drawn once for each."""
        mark = self._view.marks()[name]
        if name not in self._pieces or self._pieces[name][0] != mark:
            shown = {"view": self._view, "task": self._view.task, "token": self._token, "base": self._base}
            self._pieces[name] = (mark, self._templates.get_template(f"{name}.html").render(shown))
        return Markup(self._pieces[name][1])  # escaped when it was drawn

    def _drawn(self, template: str, **values: object) -> Response:
        if template.removesuffix(".html") in _KEPT:
            return HTMLResponse(self._piece(template.removesuffix(".html")), headers={"Cache-Control": "no-store"})
        lines, begin = self._view.log(None) if "lines" not in values else ([], 0)
        shown = {"view": self._view, "token": self._token, "task": self._view.task, "thread": self._folder.thread,
                 "lines": lines, "begin": begin, "marks": json.dumps(self._view.marks()), "piece": self._piece,
                 "base": self._base, "address": lambda name: f"{self._pages.address(name)}/",
                 **values}  # fmt: skip
        return HTMLResponse(self._templates.get_template(template).render(shown), headers={"Cache-Control": "no-store"})

    async def _form(self, request: Request) -> dict[str, list[str]] | None:
        """Return what a form of this page has sent; None where it is none of it."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > _LARGEST:
                return None
        form = parse_qs(bytes(body).decode("utf-8", "replace"), max_num_fields=100)
        given = form.get("token", [""])[0]
        return form if hmac.compare_digest(given.encode(), self._token.encode()) else None

    def _late(self, request: Request, text: str) -> Response:
        """Refuse an answer; a page with scripts shows what is asked now below it."""
        if not request.headers.get("hx-request"):
            return _refused(request, text, 409)
        asked = bytes(self._drawn("question.html").body).decode()
        below = "What is asked now stands below." if asked.strip() else "Nothing is asked now."
        return HTMLResponse(f'<p class="bad" role="alert">{escape(text)}. {below}</p>{asked}')

    def _back(self, request: Request) -> Response:
        return (
            self._drawn("question.html")
            if request.headers.get("hx-request")
            else RedirectResponse(f"{self._base}/", 303)
        )


def _number(text: str) -> int | None:
    """Return a number out of an address; None where there is none, or none that could be meant."""
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else None


def _told_broken(request: Request, error: Exception) -> Response:
    return _refused(request, str(error), 500)


def _told_missing(request: Request, error: Exception) -> Response:
    return Response(f"{error}\n", 404, media_type="text/plain")


def _refused(request: Request, text: str, status: int) -> Response:
    """Refuse a form: where a script has sent it, in place of the question, else as a page of its own."""
    thread = request.path_params.get("thread")
    back = f"/thread/{escape(thread)}/" if thread else "/"
    if request.headers.get("hx-request"):
        return HTMLResponse(f'<p class="bad" role="alert">{escape(text)}. <a href="{back}">Reload</a></p>')
    return HTMLResponse(
        f'<!DOCTYPE html><title>refused</title><p>{escape(text)}. <a href="{back}">Back</a></p>', status
    )


def _token(path: Path) -> str:
    """Return the token that forms carry; it outlives the server, so that an open page can answer after a restart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_json(path, {"secret": secrets.token_hex(32)})
        path.chmod(0o600)
    secret: str = json.loads(path.read_text(encoding="utf-8"))["secret"]
    return hmac.new(secret.encode(), b"form", hashlib.sha256).hexdigest()
