"""The thread that samples: requests of many threads, in waves or at once, cancelled, paused, failed."""

import threading
from concurrent.futures import Future
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

pytest.importorskip("transformers")

from service_models import tiny_models, tiny_sampler

from llm import base_model
from llm.engine_error import EngineError
from llm.sampling import Sampler
from llm.sampling_settings import SampleRequest, SamplingSettings, SettingError
from model.lora import LoraBank, LoraSettings
from service.sampling.sampling_loop import LoopEndedError, SamplingLoop
from service.sampling.schedules import Lockstep, NotEnteredError
from service.sampling.served_models import ServedModel, ServedModels, UnknownModelError


def request(prompt: str, tokens: int = 8, **settings) -> SampleRequest:
    return SampleRequest(list(prompt.encode()), SamplingSettings(max_tokens=tokens, end_ids=(), **settings))


def bits(ticket) -> tuple:
    sample = ticket.result(60).samples[0]
    return tuple(sample.tokens), tuple(value.hex() for value in sample.logprobs)


class TestSamplingLoop:
    def test_gives_what_the_sampler_gives(self):
        wanted = tiny_sampler().sample([request("abc", seed=3)])[0][0]
        with SamplingLoop(tiny_sampler(), tiny_models()) as loop:
            ticket = loop.submit("k", "tiny", request("abc", seed=3))
            sample = ticket.result(60).samples[0]
        assert (sample.tokens, sample.logprobs) == (wanted.tokens, wanted.logprobs)
        assert ticket.version == "v0"

    def test_each_name_has_its_own_weights(self):
        base = base_model.load("tiny")
        bank = LoraBank(base.model)
        for seed, name in enumerate(("first", "second")):
            adapter = bank.create(name, LoraSettings(rank=2, seed=seed))
            with torch.no_grad():
                for stack in adapter.lora_B.values():
                    stack.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed))
        alone = {
            name: Sampler(base, bank).sample([replace(request("abc", temperature=0), adapter=name)])[0][0].tokens
            for name in (None, "first", "second")
        }
        assert len({tuple(tokens) for tokens in alone.values()}) == 3
        models = ServedModels(ServedModel("base", "v0"), ServedModel("tuned", "v1", "first"))
        with SamplingLoop(Sampler(base, bank), models) as loop:
            tickets = [loop.submit("k", name, request("abc", temperature=0)) for name in ("base", "tuned", "base")]
            told = [(ticket.result(60).samples[0].tokens, ticket.version) for ticket in tickets]
            assert told == [(alone[None], "v0"), (alone["first"], "v1"), (alone[None], "v0")]
            models.put(ServedModel("tuned", "v2", "second"))
            ticket = loop.submit("k", "tuned", request("abc", temperature=0))
            assert (ticket.result(60).samples[0].tokens, ticket.version) == (alone["second"], "v2")
            models.remove("tuned")
            with pytest.raises(UnknownModelError, match="there are: base"):
                loop.submit("k", "tuned", request("abc"))

    def test_increments_add_up_to_the_sample(self):
        with SamplingLoop(tiny_sampler(), tiny_models()) as loop:
            ticket = loop.submit("k", "tiny", request("abc", 40, seed=3, logprobs=2), streams=True)
            sample = ticket.result(60).samples[0]
        parts = ticket.take()
        assert [token for part in parts for token in part.tokens] == sample.tokens
        assert [value for part in parts for value in part.logprobs] == sample.logprobs
        assert [each for part in parts for each in part.likeliest] == sample.likeliest
        assert "".join(part.text for part in parts) == sample.text
        assert [part.finish for part in parts] == [None] * (len(parts) - 1) + ["length"]
        assert ticket.take() == []

    def test_refuses_at_once_what_can_not_be_done(self):
        with SamplingLoop(tiny_sampler(), tiny_models(), Lockstep()) as loop:
            with pytest.raises(UnknownModelError, match="there is no model 'other'; there are: tiny"):
                loop.submit("k", "other", request("abc"))
            with pytest.raises(SettingError, match="of 2048 tokens"):
                loop.submit("k", "tiny", request("a" * 2048))
            with pytest.raises(NotEnteredError, match="'k' takes no part"):
                loop.submit("k", "tiny", request("abc"))

    def test_samples_go_on_while_another_thread_works(self):
        other = Future()
        with SamplingLoop(tiny_sampler(), tiny_models()) as loop:
            loop.between_steps(lambda: loop.meanwhile(other))
            try:
                for _ in range(2):
                    assert len(loop.submit("k", "tiny", request("abc")).result(60).samples[0].tokens) == 8
            finally:
                other.set_result(None)
            assert len(loop.submit("k", "tiny", request("abc")).result(60).samples[0].tokens) == 8

    def test_a_failed_step_fails_its_requests_and_no_later_one(self, monkeypatch):
        sampler, real = tiny_sampler(), Sampler.step
        monkeypatch.setattr(sampler, "step", lambda: 1 / 0)
        with SamplingLoop(sampler, tiny_models()) as loop:
            with pytest.raises(EngineError, match="division by zero"):
                loop.submit("k", "tiny", request("abc")).result(60)
            monkeypatch.setattr(sampler, "step", lambda: real(sampler))
            assert len(loop.submit("k", "tiny", request("abc")).result(60).samples[0].tokens) == 8
            assert sampler.slots == 0

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_nobody_waits_for_a_thread_that_has_died(self, monkeypatch):
        sampler = tiny_sampler()
        monkeypatch.setattr(sampler, "step", lambda: 1 / 0)
        monkeypatch.setattr(sampler, "cancel", lambda handle: 1 / 0)
        loop = SamplingLoop(sampler, tiny_models())
        loop.start()
        with pytest.raises(EngineError, match="division by zero"):
            loop.submit("k", "tiny", request("abc")).result(60)
        with pytest.raises(LoopEndedError):
            for _ in range(2):  # the first may come in before the end
                loop.submit("k", "tiny", request("abc")).result(60)
        loop.close()

    def test_who_has_gone_holds_no_row(self):
        sampler = tiny_sampler(rows=1)
        with SamplingLoop(sampler, tiny_models()) as loop:
            begun = threading.Event()
            long = loop.submit("k", "tiny", request("abc", 2000), streams=True, changed=begun.set)
            queued = loop.submit("k", "tiny", request("abd", 2000))
            assert begun.wait(60)
            loop.cancel(long)
            loop.cancel(queued)
            assert len(loop.submit("k", "tiny", request("abc")).result(60).samples[0].tokens) == 8
            assert long.done and queued.done
            assert sampler.slots == 0 and loop.waiting == loop.under_way == 0

    def test_close_ends_what_is_under_way(self):
        loop = SamplingLoop(tiny_sampler(), tiny_models())
        loop.start()
        begun = threading.Event()
        ticket = loop.submit("k", "tiny", request("abc", 2000), streams=True, changed=begun.set)
        assert begun.wait(60)
        loop.close()
        with pytest.raises(LoopEndedError):
            ticket.result(0)
        with pytest.raises(LoopEndedError):
            loop.submit("k", "tiny", request("abc"))


class TestLockstep:
    def run(self, order: list[str], gate: bool) -> dict[str, list[tuple]]:
        """Three rollouts of 3, 1 and 2 requests, which ask in a given order."""
        schedule, found = Lockstep(), {"a": [], "b": [], "c": []}
        with SamplingLoop(tiny_sampler(), tiny_models(), schedule) as loop:
            schedule.enter("c", "a", "b")
            for turn, keys in enumerate((order, [key for key in order if key != "b"], ["a"])):
                tickets = {}
                for key in keys:
                    if gate:  # the others wait for the last one
                        assert not any(ticket.version for ticket in tickets.values())
                    tickets[key] = loop.submit(key, "tiny", request(key * 40 + str(turn), 5 + turn, seed=turn), turn)
                for key, ticket in tickets.items():
                    found[key].append(bits(ticket))
                for key in ("b",) if turn == 0 else ("c",) if turn == 1 else ():
                    schedule.leave(key)
        return found

    def test_gives_the_same_bits_in_whatever_order_requests_come(self):
        first = self.run(["a", "b", "c"], gate=True)
        assert [len(turns) for turns in first.values()] == [3, 1, 2]
        assert self.run(["c", "a", "b"], gate=True) == first
        assert self.run(["b", "c", "a"], gate=False) == first

    def test_a_rollout_that_leaves_lets_the_others_go_on(self):
        schedule = Lockstep()
        with SamplingLoop(tiny_sampler(), tiny_models(), schedule) as loop:
            schedule.enter("a", "b")
            ticket = loop.submit("a", "tiny", request("abc"))
            assert not ticket.done and ticket.version is None
            schedule.leave("b")
            assert len(ticket.result(60).samples[0].tokens) == 8
            assert schedule.active == ["a"]

    def test_in_a_wave_who_has_gone_is_done_to_the_end(self):
        schedule = Lockstep()
        with SamplingLoop(tiny_sampler(), tiny_models(), schedule) as loop:
            schedule.enter("a", "b")
            begun = threading.Event()
            gone = loop.submit("a", "tiny", request("abc", 30), streams=True, changed=begun.set)
            other = loop.submit("b", "tiny", request("abd", 40))
            assert begun.wait(60)
            loop.cancel(gone)
            assert len(other.result(60).samples[0].tokens) == 40
            assert len(gone.result(60).samples[0].tokens) == 30


def test_other_work_is_done_by_the_same_thread_between_two_steps():
    threads, over = [], threading.Event()

    def work(then=None):
        threads.append(threading.current_thread().name)
        if then is not None:
            then()
        else:
            raise ValueError("work that fails")

    with SamplingLoop(tiny_sampler(), tiny_models()) as loop:
        ticket = loop.submit("k", "tiny", request("abc", 30))
        loop.between_steps(work)  # its error leaves the loop as it is
        loop.between_steps(lambda: work(over.set))
        assert over.wait(60) and len(ticket.result(60).samples[0].tokens) == 30
    assert threads == ["sampling", "sampling"]
    with pytest.raises(LoopEndedError):
        loop.between_steps(over.set)


def test_samples_have_as_much_time_as_other_work():
    now, steps, at = [0.0], [], []
    sampler = tiny_sampler()
    step = sampler.step

    def counted():
        now[0] += 1
        steps.append(now[0])
        return step()

    def work(seconds, gives=0):
        at.append(len(steps))
        now[0] += seconds
        if gives:
            loop.give_way(gives)
        if len(at) == 3:
            over.set()

    sampler.step, over, begun = counted, threading.Event(), threading.Event()
    with SamplingLoop(sampler, tiny_models(), clock=lambda: now[0]) as loop:
        loop.between_steps(lambda: begun.wait(60))  # until all is there
        ticket = loop.submit("k", "tiny", request("abc", 40))
        for seconds, gives in ((10, 0), (10, 10), (3, 0)):
            loop.between_steps(lambda seconds=seconds, gives=gives: work(seconds, gives))
        begun.set()
        assert over.wait(60) and len(ticket.result(60).samples[0].tokens) == 40
    # One step between two works, and before the next as many as the last has taken and not given away itself.
    assert [later - earlier for earlier, later in pairwise(at)] == [11, 11]
