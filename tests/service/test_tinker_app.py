"""The Tinker protocol as its own client and bare HTTP meet it; other forms of its messages: test_tinker_messages."""

import copy
import json
import math

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("tinker")

import httpx
import numpy
import tinker
from tinker import types
from tinker_calls import Calls, rows

from llm import base_model
from llm.engine import EngineLimits
from service.local_service import serve
from service.tinker.tinker_endpoint import TinkerLimits

ADAM = types.AdamParams(learning_rate=1e-2)
PROMPT, ANSWER = list(b"colour of apple?"), list(b" red\n")


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINKER_TELEMETRY", "0")
        yield


def quick_learner():
    """Return the tiny model with weights that are large enough for an adapter to teach it a few words."""
    base = base_model.load("tiny")
    base.model.draw(0, std=0.1)
    return base


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    limits = TinkerLimits(body=10**6, hold=0.2)
    with serve(quick_learner(), tmp_path_factory.mktemp("store"), gap_seconds=1.0, limits=limits) as service:
        yield service


@pytest.fixture(scope="module")
def client(served):
    with tinker.ServiceClient(base_url=served.url, api_key="tml-x") as client:  # else its heartbeats outlive the server
        yield client


def datum(prompt=PROMPT, answer=ANSWER):
    full = [*prompt, *answer]
    weights = [0.0] * (len(prompt) - 1) + [1.0] * len(answer)
    return types.Datum(
        model_input=types.ModelInput.from_ints(full[:-1]),
        loss_fn_inputs={"target_tokens": full[1:], "weights": weights},
    )


def trained(client, steps=30, **more):
    trainer = client.create_lora_training_client(base_model="tiny", rank=8, seed=1, **more).result()
    for _ in range(steps):
        trainer.forward_backward([datum()], "cross_entropy")
        trainer.optim_step(ADAM)
    return trainer


def loss(trainer) -> float:
    return trainer.forward([datum()], "cross_entropy").result().metrics["loss:sum"]


def post(served, path, status=200, headers=None, **fields):
    answer = httpx.post(f"{served.url}/api/v1/{path}", json=fields, headers=headers, timeout=30)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def result(served, request_id):
    """What comes of a promise, by JSON."""
    for _ in range(300):
        answer = httpx.post(f"{served.url}/api/v1/retrieve_future", json={"request_id": request_id}, timeout=30)
        if answer.status_code != 408:
            return answer.json()
    raise AssertionError("it doesn't end")


def model(served, session=None, number=0, **fields):
    session = session or post(served, "create_session", tags=[], sdk_version="0")["session_id"]
    asked = post(served, "create_model", session_id=session, model_seq_id=number, base_model="tiny", **fields)
    return result(served, asked["request_id"])["model_id"]


def test_a_checkpoint_is_a_model_of_openai_s_protocol(client, served):
    trainer = trained(client, steps=3)
    path = trainer.save_weights_for_sampler("one").result().path
    asked = {"model": path, "prompt": PROMPT, "max_tokens": 8, "temperature": 0, "return_token_ids": True}
    told = httpx.post(f"{served.url}/oai/api/v1/completions", json=asked, timeout=30).json()
    sampler = client.create_sampling_client(model_path=path).result()
    greedy = types.SamplingParams(max_tokens=8, temperature=0.0)
    (sequence,) = sampler.sample(types.ModelInput.from_ints(PROMPT), 1, greedy).result().sequences
    assert told["choices"][0]["token_ids"] == list(sequence.tokens)


def test_wrong_contents_fail_their_promise_and_the_model_goes_on(client):
    trainer = trained(client, steps=1)
    before = loss(trainer)
    with pytest.raises(tinker.RequestFailedError, match="token 5000"):
        trainer.forward_backward([datum(prompt=[5000, 1])], "cross_entropy").result()
    with pytest.raises(tinker.RequestFailedError, match="loss_fn is 'gspo'"):
        trainer.forward_backward([datum()], "gspo").result()
    with pytest.raises(tinker.RequestFailedError, match="learning_rate is nan|learning_rate"):
        trainer.optim_step(types.AdamParams(learning_rate=-1.0)).result()
    assert loss(trainer) == before


def test_json_and_protobuf_say_the_same(served):
    """The same request by both forms and packed; the same answer read by both forms."""
    zstandard = pytest.importorskip("zstandard")
    from tinker.proto import tinker_public_pb2 as messages

    calls = Calls(served.url)
    asked = messages.ForwardBackwardRequest(
        model_id=calls.model(), seq_id=1, loss_fn="cross_entropy", forward_only=True
    )
    row = asked.data.add()
    row.model_input.add().encoded_text.tokens = numpy.array(PROMPT, "<i4").tobytes()
    for name, kind, values in (
        ("target_tokens", messages.DTYPE_INT64, numpy.array(PROMPT, "<i8")),
        ("weights", messages.DTYPE_FLOAT32, numpy.ones(len(PROMPT), "<f4")),
    ):
        row.loss_fn_inputs[name].dense, row.loss_fn_inputs[name].dtype = values.tobytes(), kind
    packed = {"Content-Type": "application/x-protobuf", "Content-Encoding": "zstd"}
    body = zstandard.compress(asked.SerializeToString())
    first = calls.send("POST", "forward_backward", headers=packed, content=body)["request_id"]
    fields = {"data": rows(*PROMPT), "loss_fn": "cross_entropy"}
    second = calls.post("forward", model_id=asked.model_id, seq_id=2, forward_input=fields)["request_id"]
    told = [calls.result(each) for each in (first, second)]
    assert told[0] == told[1]
    for id, plain in zip((first, second), told, strict=True):
        answer = httpx.post(f"{calls.url}/retrieve_future", json={"request_id": id}, headers={
            "Accept": "application/x-protobuf"})  # fmt: skip
        assert answer.headers["content-type"] == "application/x-protobuf"
        read = messages.ForwardBackwardOutput.FromString(answer.content)
        (record,) = read.loss_fn_outputs
        found = numpy.frombuffer(record.fields["logprobs"].data, "<f4")
        assert found.tolist() == pytest.approx(plain["loss_fn_outputs"][0]["logprobs"]["data"], abs=1e-6)
        assert dict(read.metrics) == plain["metrics"]
    session = calls.session()
    sample = {"base_model": "tiny", "prompt": {"chunks": [{"tokens": PROMPT}]}, "num_samples": 2,
              "prompt_logprobs": True, "topk_prompt_logprobs": 2, "topk_sample_logprobs": 2,
              "sampling_params": {"max_tokens": 4, "stop": [], "seed": 5}, "session_id": session}  # fmt: skip
    id = calls.post("asample", **sample)["request_id"]
    plain = calls.result(id)
    answer = httpx.post(f"{calls.url}/retrieve_future", json={"request_id": id}, headers={
        "Accept": "application/x-protobuf, application/json"})  # fmt: skip
    read = messages.SampleResponse.FromString(answer.content)
    for one, other in zip(read.sequences, plain["sequences"], strict=True):
        assert numpy.frombuffer(one.tokens, "<i4").tolist() == other["tokens"]
        assert numpy.frombuffer(one.logprobs, "<f4").tolist() == pytest.approx(other["logprobs"], abs=1e-6)
        tops = numpy.frombuffer(one.topk_sampled_logprobs.token_ids, "<i4").reshape(-1, 2).tolist()
        assert tops == [[token for token, _ in row] for row in other["topk_logprobs"]]
    found = numpy.frombuffer(read.prompt_logprobs, "<f4")
    assert numpy.isnan(found[0]) and found[1:].tolist() == pytest.approx(plain["prompt_logprobs"][1:], abs=1e-6)
    tops = numpy.frombuffer(read.topk_prompt_logprobs.logprobs, "<f4").reshape(-1, 2)
    assert (tops[0] == numpy.float32(-99999.0)).all() and plain["topk_prompt_logprobs"][0] is None


def test_a_request_that_comes_twice_is_done_once(served):
    id = model(served)
    data = [{"model_input": {"chunks": [{"tokens": PROMPT}]},
             "loss_fn_inputs": {name: {"data": [1] * len(PROMPT), "dtype": kind}
                                for name, kind in (("target_tokens", "int64"), ("weights", "float32"))}}]  # fmt: skip
    body = {"model_id": id, "seq_id": 1, "forward_backward_input": {"data": data, "loss_fn": "cross_entropy"}}
    first, second = (post(served, "forward_backward", **body)["request_id"] for _ in range(2))
    assert first == second
    told = [result(served, first) for _ in range(2)]  # and it is answered again
    assert told[0] == told[1] and told[0]["metrics"]["loss:sum"] > 0
    step = {"model_id": id, "adam_params": {"learning_rate": 0.1}}
    promises = [post(served, "optim_step", seq_id=number, **step)["request_id"] for number in (3, 2, 2)]
    assert [result(served, each)["metrics"]["step:max"] for each in promises] == [1, 1, 1]
    assert [result(served, each)["metrics"]["skipped:sum"] for each in promises[:2]] == [1, 0]


def test_samples_for_clients_that_read_json(served):
    session = post(served, "create_session", tags=[], sdk_version="0")["session_id"]
    asked = {"session_id": session, "sampling_session_seq_id": 0, "base_model": "tiny"}
    sampler = post(served, "create_sampling_session", **asked)["sampling_session_id"]
    assert post(served, "create_sampling_session", **asked)["sampling_session_id"] == sampler
    told = httpx.get(f"{served.url}/api/v1/samplers/{sampler}").json()
    assert told == {"sampler_id": sampler, "base_model": "tiny", "model_path": None}
    body = {"sampling_session_id": sampler, "seq_id": 0, "num_samples": 2, "prompt_logprobs": True,
            "prompt": {"chunks": [{"type": "encoded_text", "tokens": PROMPT}]},
            "sampling_params": {"max_tokens": 5, "seed": 3, "stop": []}}  # fmt: skip
    first, again = post(served, "asample", **body), post(served, "asample", **body)
    assert first == again and len(first["sample_sequence_ids"]) == 2
    found = result(served, first["request_id"])
    assert [(len(each["tokens"]), len(each["logprobs"]), each["stop_reason"]) for each in found["sequences"]] == [
        (5, 5, "length"), (5, 5, "length"),
    ]  # fmt: skip
    assert found["prompt_logprobs"][0] is None and len(found["prompt_logprobs"]) == len(PROMPT)
    other = post(served, "asample", **body | {"seq_id": 1})["request_id"]
    assert result(served, other)["sequences"] == found["sequences"]  # by the seed
    wrong = post(served, "asample", **body | {"seq_id": 2, "sampling_params": {"top_k": 0}})["request_id"]
    assert "sampling_params.top_k is 0" in result(served, wrong)["error"]


def test_a_gap_ends(served):
    id = model(served)
    held = post(served, "optim_step", model_id=id, seq_id=2, adam_params={"learning_rate": 0.1})["request_id"]
    told = post(served, "retrieve_future", status=408, request_id=held)
    assert told == {"type": "try_again", "request_id": held, "queue_state": "active"}
    assert "request 1 of model" in result(served, held)["error"]
    after = post(served, "optim_step", model_id=id, seq_id=3, adam_params={"learning_rate": 0.1})["request_id"]
    assert "metrics" in result(served, after)


def test_refusals(served):
    session = post(served, "create_session", tags=[], sdk_version="0")["session_id"]
    for path, status, fields, told in (
        ("create_model", 400, {"session_id": session, "model_seq_id": 0, "base_model": "other"}, "this service has"),
        ("create_model", 404, {"session_id": "x", "model_seq_id": 0, "base_model": "tiny"}, "no session 'x'"),
        ("session_heartbeat", 410, {"session_id": "x"}, "no session 'x'"),
        ("retrieve_future", 410, {"request_id": "x"}, "no request 'x'"),
        ("optim_step", 404, {"model_id": "x", "seq_id": 1}, "no model 'x'"),
        ("get_info", 404, {"model_id": "x"}, "no model 'x'"),
        ("weights_info", 404, {"tinker_path": "tinker://x/weights/a"}, "no checkpoint tinker://x/weights/a"),
        ("weights_info", 400, {"tinker_path": "/etc/passwd"}, "it must be tinker://"),
        ("asample", 404, {"sampling_session_id": "x", "seq_id": 0}, "no sampling session 'x'"),
        ("copy_weights", 404, {}, "copy_weights is a feature of the hosted service"),
        ("no_such_route", 404, {}, "POST /api/v1/no_such_route is not served here"),
        ("telemetry", 413, {"events": "x" * 10**6}, "longer than 1000000 bytes"),
    ):
        assert told in post(served, path, status, **fields)["error"]
    packed = post(served, "telemetry", 415, headers={"Content-Encoding": "br"})
    assert "allowed are identity and zstd" in packed["error"]


ODD = (None, True, -1, math.nan, 2**70, "\ud800", [None], {})


def places(value, way=()):
    """All places in plain data."""
    if way:
        yield way
    inside = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, each in inside:
        yield from places(each, (*way, key))


def with_odd(body, way, odd):
    """A copy with something odd in one place."""
    body = copy.deepcopy(body)
    inside = body
    for key in way[:-1]:
        inside = inside[key]
    inside[way[-1]] = odd
    return body


def test_whatever_a_field_holds_the_service_does_not_fail(served):
    """Each field of each request by each odd value: refused or done, never an error of the service's; it goes on."""
    calls = Calls(served.url)
    session = calls.session()
    model = calls.model(session, lora_config={"rank": 2})
    calls.save(model, 1, "one")
    made = {"session_id": session, "sampling_session_seq_id": 0, "base_model": "tiny"}
    sampler = calls.post("create_sampling_session", **made)["sampling_session_id"]
    adam = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.9, "eps": 1e-8, "weight_decay": 0.0, "grad_clip_norm": 1.0}
    targets = {"data": [1] * (len(PROMPT) - 1), "dtype": "int64", "shape": [len(PROMPT) - 1, 1]}
    bodies = (
        ("forward_backward", {"model_id": model, "forward_backward_input": {
            "data": rows(*PROMPT), "loss_fn": "cross_entropy", "loss_fn_config": {"beta": 0.1}}}),
        ("optim_step", {"model_id": model, "adam_params": adam}),
        ("save_weights", {"model_id": model, "path": "two", "ttl_seconds": 60, "overwrite": True, "user_metadata": {
            "a": "b"}}),
        ("load_weights", {"model_id": model, "path": f"tinker://{model}/weights/one", "optimizer": True}),
        ("create_model", {"session_id": session, "model_seq_id": 0, "base_model": "tiny", "lora_config": {
            "rank": 2, "seed": 1, "train_mlp": True}, "optimizer_config": {"type": "adamw"}}),
        ("asample", {"sampling_session_id": sampler, "num_samples": 1, "prompt": {"chunks": [{
            "type": "encoded_text", "tokens": PROMPT}]}, "prompt_logprobs": True, "topk_prompt_logprobs": 1,
            "topk_sample_logprobs": 1, "prompt_logprobs_last_n": 2, "target_prompt_logprobs": targets,
            "sampling_params": {"max_tokens": 1, "temperature": 1.0, "top_p": 0.9, "top_k": 5, "seed": 1,
                                "stop": ["a"]}}),
        ("sessions/search", {"display_name": "d", "limit": 2, "statuses": [{"type": "active", "reasons": ["success"]}],
                             "cursor": {"last_created_at": "2026-01-01T00:00:00Z", "last_session_id": "x"}}),
        ("create_session", {"user_metadata": {"a": "b"}, "display_name": "d", "project_id": "p"}),
    )  # fmt: skip
    promised = []
    for route, body in bodies:
        for way in places(body):
            for odd in ODD:
                content = json.dumps(with_odd(body, way, odd))
                answer = calls._http.post(f"{calls.url}/{route}", content=content)
                assert answer.status_code in (200, 204, 400, 404), (route, way, odd, answer.text)
                if answer.status_code == 200 and "request_id" in answer.json():
                    promised.append((route, way, odd, answer.json()["request_id"]))
                elif answer.status_code >= 400:
                    assert answer.json()["category"] == "user"
    for route, way, odd, id in promised:
        told = calls.result(id)
        assert told.get("category") in (None, "user"), (route, way, odd, told)
    assert calls.get(f"training_runs/{model}")["training_run_id"] == model and calls.get("checkpoints")


def test_packed_bodies_are_read_up_to_the_limit(served):
    zstandard = pytest.importorskip("zstandard")
    for size, status in ((10, 200), (10**8, 413)):
        body = zstandard.compress(b'{"events": "' + b"x" * size + b'"}')
        headers = {"Content-Encoding": "zstd"}
        assert httpx.post(f"{served.url}/api/v1/telemetry", content=body, headers=headers).status_code == status


def test_what_a_client_asks_at_its_start(served):
    assert post(served, "client/config", sdk_version="0.38.0") == {}
    assert post(served, "client/dynamic_config", sdk_version="0.38.0") == {"sample_cancel_enabled": True}
    models = httpx.get(f"{served.url}/api/v1/get_server_capabilities").json()["supported_models"]
    assert [each["model_name"] for each in models] == ["tiny"]
    for path in ("/healthz", "/api/v1/healthz"):
        assert httpx.get(served.url + path).json() == {"status": "ok"}
    session = post(served, "create_session", tags=[], sdk_version="0")["session_id"]
    assert post(served, "session_heartbeat", session_id=session) == {"type": "session_heartbeat"}
    assert post(served, f"sessions/{session}/finish", status=204) is None
    assert "has ended" in post(served, "session_heartbeat", status=410, session_id=session)["error"]


def test_a_model_whose_client_has_gone_gives_up_its_place(tmp_path):
    with serve(base_model.load("tiny"), tmp_path, engine_limits=EngineLimits(adapters=2)) as service:
        calls = Calls(service.url)
        gone, silent, there = (calls.session() for _ in range(3))
        first = calls.model(gone, lora_config={"rank": 2})
        path = calls.save(first, 1, "one")
        calls.model(silent, lora_config={"rank": 2})
        made = {"session_id": there, "base_model": "tiny", "lora_config": {"rank": 2}}
        refused = calls.result(calls.post("create_model", model_seq_id=0, **made)["request_id"])
        assert "at most 2 adapters" in refused["error"]  # all are in use
        calls.send("POST", f"sessions/{gone}/finish", 204, json={"reason": {"type": "success"}})
        assert calls.model(there, 1, lora_config={"rank": 2}) == f"{there}:train:1"
        told = calls.post("optim_step", 404, model_id=first, seq_id=2, adam_params={"learning_rate": 0.1})
        assert "or it was unloaded: load a checkpoint of it" in told["error"]
        service.models.sessions[silent].heard -= 1000  # without a heartbeat
        new = calls.post("load_weights", path=path, optimizer=True, session_id=there, model_seq_id=2)
        assert calls.result(new["request_id"])["model_id"] == f"{there}:train:2"  # what was saved is there
        assert len(service.models.engine.names()) == 2
        for _ in range(2):  # one that can't be made leaves nothing behind
            body = {**made, "lora_config": {"rank": 1000}}
            told = calls.result(calls.post("create_model", model_seq_id=3, **body)["request_id"])
            assert "rank is 1000" in told["error"] or "at most 2" in told["error"]
        assert len(service.queue.models) == 2


def test_a_key_is_asked_for_by_both_protocols(tmp_path):
    with serve(base_model.load("tiny"), tmp_path, key="tml-secret") as service:
        for key, status in (("tml-other", 401), ("", 401), ("tml-secret", 200)):
            told = httpx.get(f"{service.url}/api/v1/sessions", headers={"X-API-Key": key})
            assert told.status_code == status
            bearer = {"Authorization": f"Bearer {key}"} if key else {}
            assert httpx.get(f"{service.url}/v1/models", headers=bearer).status_code == status
