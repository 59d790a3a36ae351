"""Samples that nobody waits for any more, that are cancelled, or that are too many: their places are free again."""

import json
import threading
import time

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("google.protobuf")

import httpx
from tinker_calls import PROMPT, Calls, quick_learner, rows

from service.local_service import serve
from service.tinker import tinker_models
from service.tinker.tinker_endpoint import TinkerLimits
from service.tinker.tinker_messages import TinkerPath
from service.tinker.tinker_sampling import SamplingEndpoints

LONG = {"max_tokens": 1900, "stop": []}  # some seconds


def asked(session, number, samples=1, **params):
    prompt = {"chunks": [{"type": "encoded_text", "tokens": PROMPT}]}
    return {"sampling_session_id": session, "seq_id": number, "num_samples": samples, "prompt": prompt,
            "sampling_params": {"max_tokens": 2, "stop": []} | params}  # fmt: skip


@pytest.fixture(scope="module")
def base():
    return quick_learner()


@pytest.fixture(scope="module")
def service(base, tmp_path_factory):
    with serve(base, tmp_path_factory.mktemp("store"), limits=TinkerLimits(hold=0.2, samples=3)) as service:
        yield service


@pytest.fixture(scope="module")
def calls(service):
    return Calls(service.url)


@pytest.fixture
def sampler(calls):
    return sampler_of(calls)


def sampler_of(calls):
    made = {"session_id": calls.session(), "sampling_session_seq_id": 0, "base_model": "tiny"}
    return calls.post("create_sampling_session", **made)["sampling_session_id"]


def idle(service):
    """Wait until nothing is sampled any more; how long that took."""
    begin = time.monotonic()
    while service.loop.waiting or service.loop.under_way:
        assert time.monotonic() - begin < 60, "it goes on"
        threading.Event().wait(0.01)
    return time.monotonic() - begin


def test_a_client_cancels(service, calls, sampler):
    id = calls.post("asample", **asked(sampler, 0, **LONG))["request_id"]
    assert calls.post("retrieve_future", 408, request_id=id)["type"] == "try_again"
    assert calls.post("cancel_future", 204, request_id=id) is None
    assert calls.result(id) == {"error": "the request was cancelled by its client", "category": "user"}
    idle(service)
    done = calls.post("asample", **asked(sampler, 1))["request_id"]
    told = calls.result(done)
    for each in (done, "unknown"):  # too late
        calls.post("cancel_future", 204, request_id=each)
    assert calls.result(done) == told and len(told["sequences"]) == 1


def test_samples_whose_client_hangs_up_are_cancelled_and_may_be_asked_for_again(base, tmp_path):
    with serve(base, tmp_path, limits=TinkerLimits(hold=30.0, silent=0.3, unasked=600.0)) as service:
        calls = Calls(service.url)
        sampler = sampler_of(calls)
        id = calls.post("asample", **asked(sampler, 0, **LONG))["request_id"]
        with pytest.raises(httpx.ReadTimeout):  # the client hangs up while it waits
            httpx.post(f"{calls.url}/retrieve_future", json={"request_id": id}, timeout=httpx.Timeout(60, read=0.05))
        idle(service)
        assert "there is no request" in calls.post("retrieve_future", 410, request_id=id)["error"]
        again = calls.post("asample", **asked(sampler, 0))["request_id"]
        assert again == id and len(calls.result(again)["sequences"][0]["tokens"]) == 2


def test_samples_that_nobody_asks_for_are_cancelled(base, tmp_path):
    with serve(base, tmp_path, limits=TinkerLimits(unasked=0.3)) as service:
        calls = Calls(service.url)
        id = calls.post("asample", **asked(sampler_of(calls), 0, **LONG))["request_id"]
        idle(service)
        assert "there is no request" in calls.post("retrieve_future", 410, request_id=id)["error"]


def test_who_waits_is_waited_for(base, tmp_path):
    limits = TinkerLimits(hold=60.0, silent=0.2, unasked=60.0)
    with serve(base, tmp_path, limits=limits) as service:
        calls = Calls(service.url)
        gate = threading.Event()
        service.loop.between_steps(gate.wait)
        try:
            id = calls.post("asample", **asked(sampler_of(calls), 0))["request_id"]
            timer = threading.Timer(0.6, gate.set)  # longer than anybody may be silent
            timer.start()
            assert len(calls.result(id)["sequences"][0]["tokens"]) == 2
        finally:
            gate.set()


def test_too_many_are_told_to_come_again(service, calls, sampler):
    ids = [calls.post("asample", **asked(sampler, number, **LONG))["request_id"] for number in range(3)]
    answer = httpx.post(f"{calls.url}/asample", json=asked(sampler, 3))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert "3 requests for samples wait already" in answer.json()["error"]
    assert calls.post("asample", **asked(sampler, 0, **LONG))["request_id"] == ids[0]  # one that is known already
    for id in ids:
        calls.post("cancel_future", 204, request_id=id)
    idle(service)
    assert calls.result(calls.post("asample", **asked(sampler, 3))["request_id"])["sequences"]


def test_samples_go_on_while_files_are_written_and_read(service, calls, sampler, monkeypatch):
    """The disk waits here until a sample that was asked for meanwhile has ended."""
    sampled = threading.Event()

    def waits(name):
        real = getattr(tinker_models, name)

        def slow(*given):
            assert sampled.wait(60), "samples waited for the disk"
            return real(*given)

        monkeypatch.setattr(tinker_models, name, slow)

    waits("save_state")
    waits("load_state")
    model = calls.model(lora_config={"rank": 2})
    saving = calls.post("save_weights", model_id=model, seq_id=1, path="one")["request_id"]
    first = calls.post("asample", **asked(sampler, 0))["request_id"]
    assert len(calls.result(first)["sequences"]) == 1
    sampled.set()
    path = calls.result(saving)["path"]
    sampled.clear()
    fields = {"model_id": model, "path": path, "optimizer": True}
    loading = calls.post("load_weights", **fields, seq_id=2)["request_id"]
    second = calls.post("asample", **asked(sampler, 1))["request_id"]
    assert len(calls.result(second)["sequences"]) == 1
    sampled.set()
    assert calls.result(loading)["path"] == path


def test_training_goes_on_while_a_checkpoint_is_written(service, calls, monkeypatch):
    """The disk waits here until a step has been made that was asked for behind the save; it is not in what is saved."""
    stepped, begun, real = threading.Event(), [], tinker_models.save_state

    def slow(folder, *given):
        begun.append(folder.name)
        assert stepped.wait(60), "training waited for the disk"
        return real(folder, *given)

    monkeypatch.setattr(tinker_models, "save_state", slow)
    model = calls.model(lora_config={"rank": 2, "seed": 1})
    loss = {"forward_backward_input": {"data": rows(*PROMPT), "loss_fn": "cross_entropy"}}
    step = {"adam_params": {"learning_rate": 1e-2}}

    def asked_for(*wanted):
        return [
            calls.post(route, model_id=model, seq_id=number, **more)["request_id"] for number, route, more in wanted
        ]

    calls.result(asked_for((1, "forward_backward", loss))[0])
    calls.result(asked_for((2, "optim_step", step))[0])
    one, passed, made, two = asked_for(
        (3, "save_weights_for_sampler", {"path": "one"}), (4, "forward_backward", loss), (5, "optim_step", step),
        (6, "save_weights_for_sampler", {"path": "two"}),
    )  # fmt: skip
    assert calls.result(made)["metrics"]["step:max"] == 2 and "metrics" in calls.result(passed)
    assert begun == ["one"] and calls.post("retrieve_future", 408, request_id=two)
    stepped.set()
    paths = [calls.result(each)["path"] for each in (one, two)]
    versions = [service.loop.models.find(path).version for path in paths]
    assert versions[0] != versions[1]
    for path, version in zip(paths, versions, strict=True):
        folder = service.models.checkpoint(TinkerPath.of(path)).folder
        assert json.loads((folder / "adapter_state.json").read_text())["version"] == version


def test_one_question_tells_which_samples_have_ended(service, calls, sampler):
    target = {"type": "sampling_session", "sampling_session_id": sampler, "cloned_sampler_id": 0}
    assert calls.post("retrieve_futures", target=target, prev_cursor=0) == {"completions": [], "cursor": 0}
    gate, held = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        gate.wait()

    service.loop.between_steps(hold)
    held.wait()  # else what is asked for now may be sampled before
    try:
        first = calls.post("asample", **asked(sampler, 0))["request_id"]
        wrong = calls.post("asample", **asked(sampler, 1, temperature=-1))["request_id"]
        told = calls.post("retrieve_futures", target=target, timeout=0)
        assert told == {"completions": [{"state": "failed", "request_id": wrong}], "cursor": 1}
        assert calls.post("retrieve_futures", target=target, prev_cursor=0, timeout=0) == told  # until it is seen
        assert calls.post("retrieve_futures", target=target, prev_cursor=1)["completions"] == []
    finally:
        gate.set()
    calls.result(first)
    told = calls.post("retrieve_futures", target=target, prev_cursor=1)
    assert told == {"completions": [{"state": "finished", "request_id": first}], "cursor": 2}
    clone = calls.post("join_sampling_session", sampling_session_id=sampler)["client_counter"]
    assert 0 < clone < calls.post("join_sampling_session", sampling_session_id=sampler)["client_counter"] < 2**33
    other = calls.post("asample", **asked(sampler, clone * 10**9))["request_id"]
    calls.result(other)
    told = calls.post("retrieve_futures", target=target | {"cloned_sampler_id": clone})
    assert [each["request_id"] for each in told["completions"]] == [other]
    assert calls.post("retrieve_futures", target=target, prev_cursor=2) == {"completions": [], "cursor": 2}


def test_that_question_is_answered_after_a_start_too(base, tmp_path):
    with serve(base, tmp_path) as service:
        calls = Calls(service.url)
        sampler = sampler_of(calls)
        target = {"type": "sampling_session", "sampling_session_id": sampler, "cloned_sampler_id": 0}
        ids = [calls.post("asample", **asked(sampler, number))["request_id"] for number in (0, 1)]
        for id in ids:
            calls.result(id)
        assert calls.post("retrieve_futures", target=target)["cursor"] == 2
    with serve(base, tmp_path) as service:
        calls = Calls(service.url)
        told = calls.post("retrieve_futures", target=target, prev_cursor=2)
        assert (told["cursor"], {each["request_id"] for each in told["completions"]}) == (4, set(ids))
        third = calls.post("asample", **asked(sampler, 2))["request_id"]
        calls.result(third)
        told = calls.post("retrieve_futures", target=target, prev_cursor=4)
        assert told == {"completions": [{"state": "finished", "request_id": third}], "cursor": 5}


def test_the_official_client_asks_that_question_too(service, monkeypatch):
    tinker = pytest.importorskip("tinker")
    from tinker import types
    from tinker.lib.internal_client_holder import InternalClientHolder

    async def config(*_):
        return types.ClientConfigResponse(sample_use_retrieve_futures=True)

    monkeypatch.setattr(InternalClientHolder, "_fetch_client_config", config)
    with tinker.ServiceClient(base_url=service.url, api_key="tml-x") as client:
        sampler = client.create_sampling_client(base_model="tiny").result()
        params = [types.SamplingParams(max_tokens=3, seed=seed, stop=[]) for seed in (1, 2, 1)]
        prompt = types.ModelInput.from_ints(PROMPT)
        found = [sampler.sample(prompt, 1, each).result(60).sequences[0].tokens for each in params]
        assert found[0] == found[2] != found[1]


def test_the_official_client_cancels_what_its_user_does(service, monkeypatch):
    tinker = pytest.importorskip("tinker")
    from tinker import types

    asks, real = threading.Event(), SamplingEndpoints.asking

    def asking(self, promise):
        asks.set()
        return real(self, promise)

    monkeypatch.setattr(SamplingEndpoints, "asking", asking)
    with tinker.ServiceClient(base_url=service.url, api_key="tml-x") as client:
        sampler = client.create_sampling_client(base_model="tiny").result()
        prompt, params = types.ModelInput.from_ints(PROMPT), types.SamplingParams(max_tokens=1900, stop=[])
        before = service.loop.sampled_tokens
        future = sampler.sample(prompt, 1, params).future()
        assert asks.wait(60)  # only now the client knows the request's id
        future.cancel()
        idle(service)
        assert future.cancelled() and service.loop.sampled_tokens - before < 1900


def test_samplers_without_a_name_go_with_their_model(service, calls):
    session = calls.session()
    model = calls.model(session, lora_config={"rank": 2})
    asks = {"model_id": model, "seq_id": 1, "sampling_session_seq_id": 9}
    id = calls.result(calls.post("save_weights_for_sampler", **asks)["request_id"])["sampling_session_id"]
    held = len(service.models.engine.versions())
    assert len(calls.result(calls.post("asample", **asked(id, 0))["request_id"])["sequences"]) == 1
    calls.result(calls.post("unload_model", model_id=model)["request_id"])
    assert "no sampling session" in calls.post("asample", 404, **asked(id, 1))["error"]
    assert len(service.models.engine.versions()) == held - 1


def test_samplers_are_told_and_checked(calls):
    session = calls.session()
    made = {"session_id": session, "sampling_session_seq_id": 5, "base_model": "tiny"}
    id = calls.post("create_sampling_session", **made)["sampling_session_id"]
    assert calls.get(f"samplers/{id}") == {"sampler_id": id, "base_model": "tiny", "model_path": None}
    assert calls.get(f"sessions/{session}")["sampler_ids"] == [id]
    model = calls.model(session, lora_config={"rank": 2})
    path = calls.save(model, 1, "one", sampler=True)
    of_path = calls.post("create_sampling_session", **{**made, "sampling_session_seq_id": 6, "model_path": path})
    assert calls.get(f"samplers/{of_path['sampling_session_id']}")["model_path"] == path
    weights = calls.save(model, 2, "two")
    for change, told in (
        ({"base_model": "other"}, "this service has 'tiny'"),
        ({"base_model": "other", "model_path": path}, "this service has 'tiny'"),
        ({"base_model": None}, "base_model or model_path is missing"),
        ({"model_path": weights}, "was not saved to be sampled from"),
        ({"model_path": "file:///x"}, "it must be tinker://"),
    ):
        assert (
            told
            in calls.post("create_sampling_session", 400, **made | {"sampling_session_seq_id": 7} | change)["error"]
        )


def test_what_is_not_supported_is_refused_by_its_name(calls, sampler):
    for number, (field, value) in enumerate(
        (
            ("record_stability_info", True),
            ("topk_sample_logprobs", -1),
            ("prompt_logprobs_last_n", 0),
            ("num_samples", 0),
        )
    ):
        body = asked(sampler, number) | {field: value}
        if field == "num_samples":
            assert "num_samples is 0" in calls.post("asample", 400, **body)["error"]
        else:
            assert field in calls.result(calls.post("asample", **body)["request_id"])["error"]
