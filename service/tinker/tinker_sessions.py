"""Sessions of the Tinker protocol: whose they are, when they were last heard of, how they ended, what they made."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter

from service.tinker.tinker_fields import Fields, Json

SILENT = 45.0  # seconds without a word after which a session counts as ended: clients send one every 10 s
_REASONS = ("success", "errored", "interrupted")
_MOST_FOUND = 200


@dataclass
class Session:
    """One client's work.

    Attributes:
        id: its id.
        created: when it began, seconds since 1970.
        metadata: data of the user's own.
        display_name: the user's name for it.
        project: id of a project that the user named.
        models: ids of the models that were made in it, oldest first.
        heard: when the client was last heard of, seconds since 1970.
        finish: how the client said it had ended; None while it goes on.
    """

    id: str
    created: float
    metadata: Json | None = None
    display_name: str | None = None
    project: str | None = None
    models: list[str] = field(default_factory=list)
    heard: float = 0.0
    finish: Json | None = None

    @staticmethod
    def of(id: str, body: Json) -> "Session":
        """Read it from a create_session.

        Raises:
            TinkerError: a field can't be used.
        """
        given, now = Fields(body), time.time()
        name = given.text("display_name") if given.has("display_name") else None
        project = given.text("project_id") if given.has("project_id") else None
        return Session(id, now, given.metadata("user_metadata"), name, project, heard=now)

    @property
    def over(self) -> bool:
        """Whether its client has ended, or was not heard of for long."""
        return self.finish is not None or time.time() - self.heard > SILENT

    def end(self, body: Json) -> None:
        """Note how it has ended; what was noted first stays.

        Raises:
            TinkerError: there is no such way.
        """
        given = Fields(body)
        reason = given.inside("reason", required=False).text("type", "success")
        if reason not in _REASONS:
            raise given.wrong("reason.type", reason, f"allowed are {', '.join(_REASONS)}")
        detail = given.text("detail") if given.has("detail") else None
        if self.finish is None:
            self.finish = {"type": "client_finished", "reason": {"type": reason}, "detail": detail}


def search(sessions: Iterable[Session], body: Json, stored: Callable[[Session], tuple[int, int]]) -> Json:
    """Answer a search of sessions.

    Args:
        sessions: all sessions.
        body: what is looked for.
        stored: returns how many checkpoints a session has, and their bytes.

    Raises:
        TinkerError: a field of the search can't be used.
    """
    given = Fields(body)
    limit = given.whole("limit", 50, least=1, most=_MOST_FOUND)
    wanted = _condition(given)
    found = sorted(filter(wanted, sessions), key=attrgetter("created", "id"), reverse=True)
    if given.has("cursor"):
        cursor = given.inside("cursor")
        try:
            last = datetime.fromisoformat(cursor.text("last_created_at")).timestamp(), cursor.text("last_session_id")
        except ValueError as error:
            raise cursor.wrong("last_created_at", cursor.raw("last_created_at"), "it must be a time") from error
        found = [each for each in found if (round(each.created, 6), each.id) < (round(last[0], 6), last[1])]
    told = []
    for each in found[:limit]:
        checkpoints, size = stored(each)
        told.append({
            "session_id": each.id, "created_at": iso_time(each.created), "owner": "local",
            "project_id": each.project or "default", "status": _status(each), "checkpoints_count": checkpoints,
            "display_name": each.display_name, "user_metadata": each.metadata, "checkpoint_storage_bytes": size,
        })  # fmt: skip
    following = None
    if len(found) > limit:
        last_one = found[limit - 1]
        following = {"last_created_at": iso_time(last_one.created), "last_session_id": last_one.id}
    return {"sessions": told, "next_cursor": following}


def iso_time(seconds: float) -> str:
    """Return a time since 1970 as the protocol tells it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _condition(given: Fields) -> Callable[[Session], bool]:
    """Return what tells whether a session is looked for."""
    id = given.text("session_id") if given.has("session_id") else None
    words = given.text("display_name").lower().split() if given.has("display_name") else None
    metadata = given.mapping("user_metadata")
    projects = given.listed("project_ids") if given.has("project_ids") else None
    states = given.listed("statuses") if given.has("statuses") else None
    for each in states or ():
        if not isinstance(each, dict) or each.get("type") not in ("active", "cancelled", "failed", "client_finished"):
            raise given.wrong("statuses", each, "its type must be active, cancelled, failed or client_finished")

    def named(session: Session) -> bool:
        if id is None and words is None:
            return True
        name = (session.display_name or "").lower()
        return session.id == id or (words is not None and bool(name) and all(word in name for word in words))

    def in_state(session: Session) -> bool:
        if states is None:
            return True
        status = _status(session) or {}
        return any(
            each["type"] == status.get("type")
            and (not each.get("reasons") or status.get("reason", {}).get("type") in each["reasons"])
            for each in states
        )

    def fits(session: Session) -> bool:
        if projects is not None and (session.project or "default") not in projects:
            return False
        own = session.metadata or {}
        return named(session) and in_state(session) and all(own.get(key) == metadata[key] for key in metadata)

    return fits


def _status(session: Session) -> Json | None:
    if session.finish is not None:
        return session.finish
    return None if session.over else {"type": "active"}
