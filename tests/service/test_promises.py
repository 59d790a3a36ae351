"""Promises end once, wake who waits, are answered again, and go by age."""

import asyncio
import threading

import pytest

from service.tinker.promises import Promises
from service.tinker.tinker_messages import PlainAnswer
from service.web.tinker_error import TinkerError

DONE = PlainAnswer({"done": True})


def test_the_same_id_gives_the_same_promise():
    promises = Promises()
    first, new = promises.once("m:1")
    again, newer = promises.once("m:1")
    assert first is again and (new, newer) == (True, False)


def test_it_ends_once_and_wakes_who_waits_from_another_thread():
    promise, _ = Promises().once("m:1")

    async def ask() -> tuple[bool, bool]:
        early = await promise.wait(0)
        threading.Thread(target=promise.keep, args=(DONE,)).start()
        return early, await promise.wait(60)

    assert asyncio.run(ask()) == (False, True)
    promise.fail(TinkerError("too late"))
    assert promise.answer is DONE and promise.error is None


def test_answers_go_by_age_and_sooner_when_they_were_read():
    now = [0.0]
    promises = Promises(unread_seconds=1000, read_seconds=100, clock=lambda: now[0])
    read, unread, open_one = (promises.once(id)[0] for id in ("read", "unread", "open"))
    read.keep(DONE), unread.keep(DONE)
    assert promises.find("read") is read
    read.read = True
    now[0] = 100
    assert promises.find("read") is read  # a response that was lost is asked for again
    now[0] = 120
    with pytest.raises(TinkerError, match="no request 'read'") as told:
        promises.find("read")
    assert told.value.status == 410
    assert promises.find("unread") is unread
    now[0] = 5000
    with pytest.raises(TinkerError):
        promises.find("unread")
    assert promises.find("open") is open_one and len(promises) == 1


def test_the_end_of_a_service_fails_what_is_open():
    promises = Promises()
    kept, open_one = promises.once("a")[0], promises.once("b")[0]
    kept.keep(DONE)
    promises.close(TinkerError("closed", category="server"))
    assert kept.error is None and open_one.error is not None and open_one.error.category == "server"
