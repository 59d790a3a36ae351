"""Training in the order of each model, several models in one pass, sampling between: all by one thread."""

import threading
from itertools import pairwise

import pytest
import torch

pytest.importorskip("transformers")

from llm import base_model
from llm.adam import AdamSettings
from llm.engine import Engine, EngineLimits
from llm.loss_pass import LossRequest, LossRow
from llm.sampling_settings import SampleRequest, SamplingSettings
from model.lora import LoraSettings
from service.journal.journal import Unkept
from service.sampling.sampling_loop import SamplingLoop
from service.sampling.served_models import ServedModel, ServedModels
from service.tinker.promises import Promises
from service.tinker.tinker_messages import PlainAnswer
from service.tinker.training_queue import TrainingQueue
from service.web.tinker_error import TinkerError

DONE = PlainAnswer({})
WAIT = 60


class Harness:
    """An engine, its loop and a queue whose promises tests wait for."""

    def __init__(self, **options) -> None:
        self.engine = Engine(base_model.load("tiny"))
        self.loop = SamplingLoop(self.engine.sampler, ServedModels(ServedModel("tiny", "v0")))
        self.queue = TrainingQueue(self.engine, self.loop, **options)
        self.promises = Promises()

    def submit(self, model, number, work, opens=False):
        promise, _ = self.promises.once(f"{model}:{number}")
        (self.queue.open if opens else self.queue.submit)(*([model] if opens else [model, number]), work, promise)
        return promise

    def open(self, model, seed=0):
        settings = LoraSettings(4, seed=seed)
        return self.submit(model, 0, lambda: (self.engine.create(model, settings), DONE)[1], opens=True)


def ended(*promises):
    """Wait until promises have ended."""
    for promise in promises:
        over = threading.Event()
        while not promise.done and not over.wait(0.005):
            pass
    return promises


@pytest.fixture
def made():
    harness = Harness()
    with harness.loop:
        yield harness


def rows(seed: int) -> list[LossRow]:
    tokens = torch.randint(0, 256, (9,), generator=torch.Generator().manual_seed(seed))
    return [LossRow(tokens[:-1], tokens[1:], {"weights": torch.ones(8)})]


def training(harness, model, seed) -> list:
    loss = LossRequest(model, rows(seed), backward=True)
    settings = AdamSettings(1e-2)
    step = lambda: (harness.engine.optimizer_step(model, settings), DONE)[1]  # noqa: E731
    return [loss, step] * 3 + [LossRequest(model, rows(seed))]


def test_work_is_done_by_its_numbers_whatever_order_it_comes_in(made):
    done = []
    made.open("m")
    work = [lambda number=number: (done.append(number), DONE)[1] for number in range(1, 5)]
    promises = [made.submit("m", number, work[number - 1]) for number in (3, 2, 4)]
    assert made.queue.waiting >= 3
    promises.append(made.submit("m", 1, work[0]))
    ended(*promises)
    assert done == [1, 2, 3, 4] and all(promise.error is None for promise in promises)


def test_models_train_together_as_alone(made):
    whole, alone = {}, {}
    block = threading.Event()
    made.loop.between_steps(lambda: block.wait(WAIT))  # until all is there
    for name, seed in (("a", 1), ("b", 2)):
        made.open(name, seed)
        whole[name] = [made.submit(name, number + 1, work) for number, work in enumerate(training(made, name, seed))]
    together = []
    running = made.engine.running
    made.engine.running = lambda requests: (together.append(len(requests)), running(requests))[1]
    block.set()
    for name in whole:
        ended(*whole[name])
    assert together == [2, 2, 2, 2]
    for name, seed in (("a", 1), ("b", 2)):
        made.open(f"{name} alone", seed)
        work = training(made, f"{name} alone", seed)
        alone[name] = ended(*[made.submit(f"{name} alone", number + 1, each) for number, each in enumerate(work)])
        losses = [kept[name][-1].answer.result.loss for kept in (whole, alone)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-4)
        assert losses[0] < whole[name][0].answer.result.loss - 1


def test_half_of_many_small_requests_are_computed_while_the_clients_of_the_other_half_think():
    turns = []

    class Noted(Unkept):
        def executed(self, ids):
            turns.append(list(ids))
            return super().executed(ids)

    harness = Harness(journal=Noted())
    harness.engine.limits = EngineLimits(pass_tokens=32)
    block = threading.Event()
    with harness.loop:
        ended(*[harness.open(name) for name in "abcd"])
        turns.clear()
        harness.loop.between_steps(lambda: block.wait(WAIT))
        promises = [harness.submit(name, number + 1, work)
                    for name in "abcd" for number, work in enumerate(training(harness, name, 1)[:2])]  # fmt: skip
        block.set()
        ended(*promises)
    assert turns == [["a:1", "b:1"], ["c:1", "d:1", "a:2", "b:2"], ["c:2", "d:2"]]
    assert all(promise.error is None for promise in promises)


def test_samples_go_on_between_the_passes_of_a_long_request_and_short_ones_are_answered_first(made):
    made.engine.limits = EngineLimits(pass_tokens=8)
    ended(made.open("long"), made.open("short"))
    events = []
    step, hidden = made.loop.sampler.step, made.engine.base.model.hidden

    def passed(tokens, rows, adapters=None, cache=None):
        if cache is None:
            events.append(f"pass of {len(tokens)}")
        return hidden(tokens, rows, adapters, cache)

    made.loop.sampler.step = lambda: (events.append("step"), step())[1]
    made.engine.base.model.hidden = passed
    block = threading.Event()
    made.loop.between_steps(lambda: block.wait(WAIT))
    ticket = made.loop.submit("k", "tiny", SampleRequest([65, 66], SamplingSettings(max_tokens=1000, end_ids=())))
    short = [LossRow(each.tokens[:5], each.targets[:5], {"weights": torch.ones(5)}) for each in rows(1)]
    first = made.submit("long", 1, LossRequest("long", [rows(seed)[0] for seed in range(4)], backward=True))
    second = made.submit("short", 1, LossRequest("short", short, backward=True))
    block.set()
    ended(first, second)
    made.loop.cancel(ticket)
    passes = [place for place, event in enumerate(events) if event != "step"]
    assert [events[place] for place in passes] == ["pass of 5", *["pass of 8"] * 4]
    assert all(later - earlier > 1 for earlier, later in pairwise(passes))
    assert first.error is None and second.error is None and second.ended < first.ended


def test_what_fails_leaves_the_others_and_what_follows_alone(made):
    made.open("m"), made.open("n")
    wrong = made.submit("m", 1, LossRequest("m", [LossRow(torch.tensor([999]), torch.tensor([1]))], backward=True))
    broken = made.submit("m", 2, lambda: 1 // 0)
    fine = made.submit("m", 3, LossRequest("m", rows(1)))
    other = made.submit("n", 1, LossRequest("n", rows(1)))
    ended(wrong, broken, fine, other)
    assert "token 999" in wrong.error.message and wrong.error.category == "user"
    assert broken.error.category == "server"
    assert fine.error is None and other.error is None


def test_a_missing_number_fails_what_comes_after_it_and_the_model_goes_on():
    now = [0.0]
    harness = Harness(gap_seconds=60, clock=lambda: now[0])
    with harness.loop:
        ended(harness.open("m"))
        held = harness.submit("m", 2, lambda: DONE)
        harness.queue.give_up_gaps()
        assert not held.done
        now[0] = 61
        harness.queue.give_up_gaps()
        assert "request 1 of model m has not come within 60 s" in held.error.message
        late, after = harness.submit("m", 1, lambda: DONE), harness.submit("m", 3, lambda: DONE)
        ended(late, after)
        assert "the turn of request 1 of model m is over" in late.error.message and after.error is None


def test_unknown_models_and_too_many_requests_are_refused():
    harness = Harness(most=1)
    with pytest.raises(TinkerError, match="there is no model 'x'") as told:
        harness.submit("x", 1, lambda: DONE)
    assert told.value.status == 404
    harness.open("m")  # the loop doesn't run: it waits
    with pytest.raises(TinkerError, match="1 requests wait already") as told:
        harness.submit("m", 1, lambda: DONE)
    assert told.value.status == 429
    with pytest.raises(TinkerError, match="1 requests wait already"):
        harness.open("n")
    assert harness.queue.has("m") and not harness.queue.has("n")  # so that it can be made when it is sent again


def test_samples_keep_their_weights_while_their_adapter_is_trained(made):
    ended(made.open("m"))
    settings = SamplingSettings(temperature=0, max_tokens=200, end_ids=())
    want = made.engine.sample  # before any training the adapter is the base model
    made.loop.models.put(ServedModel("m", "v1", "m"))
    block, over, alone = threading.Event(), threading.Event(), []
    made.loop.between_steps(lambda: block.wait(WAIT))
    ticket = made.loop.submit("k", "m", SampleRequest([65, 66], settings))
    work = training(made, "m", 1)
    promises = [made.submit("m", number + 1, each) for number, each in enumerate(work)]
    block.set()
    sampled = ticket.result(WAIT).samples[0].tokens
    ended(*promises)
    assert made.engine.info("m").step == 3
    made.loop.between_steps(lambda: alone.append(want([SampleRequest([65, 66], settings)])) or over.set())
    assert over.wait(WAIT) and alone[0][0][0].tokens == sampled
