"""The journal: what is shown is kept, who waits is woken, a full disk refuses requests and loses nothing."""

import asyncio
import errno
import os
import threading

import pytest
from system_calls import FullDisk, between_calls

from service.journal.journal import Journal
from service.journal.journal_file import read_file
from service.web.tinker_error import TinkerError

WAIT = 60


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path, 1, 1, {"torch": "x"})
    yield made
    made.close()


def kinds(journal, file=1):
    return [each.fields["kind"] for each in read_file(journal.file_path(file), None, last=True)[0]]


def test_a_request_is_promised_when_it_is_on_disk(tmp_path):
    synced = []
    with between_calls(lambda name, real, args, kwargs: (synced.append(name), real(*args, **kwargs))[1]):
        journal = Journal(tmp_path, 1, 1, {})
        number = journal.accept("m:1", {"what": "optim_step"}, b"body")
        asyncio.run(journal.settled(number))
        assert synced[-1] == "fsync" and "fsync" in synced[synced.index("write") :]
        journal.close()
    (begin, request), _ = read_file(journal.file_path(1), 1, last=False)
    assert begin.fields == {"kind": "begin", "facts": {}}
    assert request.fields == {"kind": "request", "id": "m:1", "what": "optim_step"} and request.content() == b"body"
    assert request.number == number == 2


def test_an_answer_of_a_turn_is_shown_when_the_turn_is_on_disk_and_another_when_it_is_itself(tmp_path):
    """The disk waits for us: what is shown meanwhile needs no waiting."""
    go, waits, shown = threading.Event(), threading.Event(), []

    def slow(name, real, args, kwargs):
        if name == "fsync" and waits.is_set():
            go.wait(WAIT)
        return real(*args, **kwargs)

    with between_calls(slow):
        journal = Journal(tmp_path, 1, 1, {})
        journal.accept("m:1", {})
        journal.executed(["m:1"])
        asyncio.run(journal.settled(journal.number - 1))
        waits.set()
        journal.answered("m:1", {"form": "x"}, b"", lambda: shown.append("turn"))
        journal.answered("s:1", {"form": "x"}, b"", lambda: shown.append("sample"))
        accepted = journal.accept("m:2", {})
        assert journal.executed(["m:2"]) == accepted + 1
        journal.answered("m:2", {"form": "x"}, b"", lambda: shown.append("later"), needs=accepted)
        journal.answered("m:2", {"form": "x"}, b"", lambda: shown.append("needs no more"), needs=2)
        assert shown == ["turn", "needs no more"]
        go.set()
        asyncio.run(journal.settled(journal.number - 1))
        journal.close()
    assert shown == ["turn", "needs no more", "sample", "later"]
    assert kinds(journal) == ["begin", "request", "turn", "answer", "answer", "request", "turn", "answer", "answer"]


def test_what_nobody_waits_for_is_on_disk_a_little_later(tmp_path):
    written, synced = threading.Event(), threading.Event()

    def noted(name, real, args, kwargs):
        found = real(*args, **kwargs)
        if name == "write" and b"session" in bytes(args[1]):
            written.set()
        elif name == "fsync" and written.is_set():
            synced.set()
        return found

    with between_calls(noted):
        journal = Journal(tmp_path, 1, 1, {})
        journal.note("session", id="s")
        assert synced.wait(WAIT)
        journal.close()


def test_a_full_disk_refuses_requests_and_keeps_the_rest_until_there_is_room(tmp_path):
    disk, shown = FullDisk(10**6, ".journal"), threading.Event()
    with between_calls(disk):
        journal = Journal(tmp_path, 1, 1, {})
        journal.accept("m:1", {}, b"x" * 100)
        disk.room = 50
        with pytest.raises(TinkerError, match="can't be written: No space left") as told:
            journal.accept("m:2", {}, b"x" * 1000)
        assert told.value.status == 503 and told.value.category == "server"
        journal.executed(["m:1"])
        journal.answered("m:1", {}, b"answer", shown.set)
        assert not shown.is_set() and journal.trouble is not None
        with pytest.raises(TinkerError, match="disk is full"):
            journal.accept("m:3", {})
        with pytest.raises(TinkerError, match="disk is full"):
            journal.note("session", must=True, id="s")
        assert journal.turn_over() is None
        disk.room = 10**6
        assert shown.wait(WAIT) and journal.trouble is None
        journal.accept("m:2", {})
        journal.close()
    assert kinds(journal) == ["begin", "request", "turn", "answer", "request"]
    numbers = [each.number for each in read_file(journal.file_path(1), 1, last=False)[0]]
    assert numbers == [1, 2, 3, 4, 5]


def test_after_a_failed_sync_nothing_more_is_promised_or_shown(tmp_path):
    bad, shown = threading.Event(), []

    def failing(name, real, args, kwargs):
        if name == "fsync" and bad.is_set():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*args, **kwargs)

    with between_calls(failing):
        journal = Journal(tmp_path, 1, 1, {})
        asyncio.run(journal.settled(journal.accept("m:1", {})))
        bad.set()
        journal.answered("s:1", {}, b"", lambda: shown.append(1))
        with pytest.raises(TinkerError, match="can't be written to disk: Input/output error"):
            asyncio.run(journal.settled(journal.number - 1))
        with pytest.raises(TinkerError, match="can't be written to disk"):
            journal.accept("m:2", {})
        journal.close()
    assert not shown


def test_a_new_file_begins_and_what_still_matters_is_known(journal):
    journal.accept("m:1", {}, b"one")
    journal.accept("m:2", {}, b"two")
    journal.answered("m:1", {}, b"answer", lambda: None)
    journal.accept("m:3", {}, b"three")
    journal.forget("m:3")
    number = journal.number
    file, first, live = journal.turn_over()
    assert (file, first) == (2, number)
    assert [b"two" in each.read() for each in live] == [True, False] and b"answer" in live[1].read()
    journal.accept("m:4", {})
    assert kinds(journal, 2) == ["begin", "request"]
    assert len(journal.turn_over()[2]) == 3
