"""Requests of the Tinker protocol by both of its forms, refusals by name, results as the real client reads them."""

import math

import numpy
import pytest
import torch

from llm.loss_pass import LossResult
from llm.sample_result import Sample, SampleHandle
from llm.sampling_settings import SampleRequest, SamplingSettings
from service.tinker.tinker_fields import read_json
from service.tinker.tinker_messages import (
    CreateModel,
    Envelope,
    LoadWeights,
    LossAnswer,
    SampleAnswer,
    Sampling,
    SaveWeights,
    TinkerPath,
    adam_settings,
    loss_request,
    loss_request_of_protobuf,
)
from service.web.tinker_error import TinkerError


def chunks(*tokens):
    return {"chunks": [{"type": "encoded_text", "tokens": list(tokens)}]}


def tensor(data, dtype="float32", **more):
    return {"data": data, "dtype": dtype, **more}


def loss_body(**inputs):
    inputs = {"target_tokens": tensor([2, 3], "int64"), "weights": tensor([0.0, 1.0])} | inputs
    datum = {"model_input": chunks(1, 2), "loss_fn_inputs": inputs}
    return {"forward_backward_input": {"data": [datum], "loss_fn": "cross_entropy"}, "model_id": "m", "seq_id": 1}


def sample_body(**fields):
    return {"prompt": chunks(1, 2, 3), "sampling_session_id": "s", "seq_id": 0, "sampling_params": {}, **fields}


def test_a_loss_request_of_json():
    asked = loss_request(loss_body(), backward=True)
    (row,) = asked.rows
    assert (asked.adapter, asked.loss, asked.backward) == ("m", "cross_entropy", True)
    assert row.tokens.tolist() == [1, 2] and row.targets.tolist() == [2, 3] and row.targets.dtype == torch.int64
    assert row.inputs["weights"].tolist() == [0.0, 1.0] and row.inputs["weights"].dtype == torch.float32


def test_chunks_without_a_type_and_several_are_laid_end_to_end():
    body = loss_body()
    body["forward_backward_input"]["data"][0]["model_input"] = {"chunks": [{"tokens": [1]}, {"tokens": [2]}]}
    assert loss_request(body, backward=True).rows[0].tokens.tolist() == [1, 2]


def test_shapes_dense_and_sparse():
    sparse = tensor([5.0, 7.0], shape=[2, 3], sparse_crow_indices=[0, 1, 2], sparse_col_indices=[2, 0])
    targets = tensor([1, 2, 3, 4, 5, 6], "int64", shape=[2, 3])
    row = loss_request(loss_body(target_tokens=targets, weights=sparse), backward=True).rows[0]
    assert row.targets.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert row.inputs["weights"].tolist() == [[0, 0, 5], [7, 0, 0]]


def test_numbers_that_are_not_finite_are_read_to_be_refused_by_name_later():
    body = read_json(b'{"data": [NaN], "dtype": "float32"}')
    row = loss_request(loss_body(weights=tensor([*body["data"], 1.0])), backward=True).rows[0]
    assert row.inputs["weights"].isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"target_tokens": tensor([2.5, 3], "int64")}, r"data\[0\].loss_fn_inputs.target_tokens.data"),
        ({"target_tokens": tensor([math.nan, 3], "int64")}, "target_tokens.data is nan"),
        ({"target_tokens": tensor([math.inf, 3], "int64")}, "target_tokens.data is inf"),
        ({"target_tokens": tensor([None, 3], "int64")}, "target_tokens.data is None"),
        ({"weights": tensor([None, 1.0])}, "weights.data is None"),
        ({"weights": tensor([True, 1.0])}, "weights.data is True"),
        ({"target_tokens": tensor([2, 3])}, "target_tokens is of floats; it must be int64"),
        ({"target_tokens": tensor([2**70, 3], "int64")}, "too large"),
        ({"weights": tensor(["a", 1.0])}, "weights.data is 'a'"),
        ({"weights": tensor([1.0, 1.0], "bfloat16")}, "weights.dtype is 'bfloat16'; allowed are float32, int64"),
        ({"weights": tensor([1.0, 1.0], shape=[3])}, r"weights has 2 numbers; its shape is \[3\]"),
        ({"weights": tensor([1.0], shape=[2, 2], sparse_crow_indices=[0, 1, 9], sparse_col_indices=[0])}, "indices"),
    ],
)
def test_tensors_are_refused_by_name(inputs, told):
    with pytest.raises(TinkerError, match=told):
        loss_request(loss_body(**inputs), backward=True)


def test_what_is_missing_or_of_another_type_is_refused_by_name():
    for change, told in (
        ({"forward_backward_input": None}, "forward_backward_input is missing; it must be an object"),
        ({"forward_backward_input": {"data": [3], "loss_fn": "ppo"}}, r"input.data\[0\] is 3; it must be an object"),
        ({"forward_backward_input": {"data": [], "loss_fn": "gspo"}}, "loss_fn is 'gspo'; this service has cross_ent"),
    ):
        with pytest.raises(TinkerError, match=told):
            loss_request(loss_body() | change, backward=True)
    image = {"chunks": [{"type": "image", "data": "", "format": "png"}]}
    with pytest.raises(TinkerError, match=r"prompt.chunks\[0\].type is 'image'; this model reads text only"):
        Sampling.of(sample_body(prompt=image))
    for seq in (0, -1, 1.5, "1", True):
        with pytest.raises(TinkerError, match="seq_id is .*; it must be an integer from 1 to"):
            Envelope.of({"model_id": "m", "seq_id": seq})
    for body in (b"[1]", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(TinkerError, match="the body is"):
            read_json(body)


def test_adam():
    body = {"adam_params": {"learning_rate": 1e-3, "beta1": 0.0, "unknown": 1}}
    settings = adam_settings(body)
    assert (settings.learning_rate, settings.beta1, settings.beta2, settings.eps) == (1e-3, 0.0, 0.95, 1e-12)
    for change, told in (
        ({"learning_rate": math.nan}, "adam_params.learning_rate is nan"),
        ({"beta2": 1.0}, "beta2 of Adam is 1.0"),
        ({"eps": "x"}, "adam_params.eps is 'x'"),
    ):
        with pytest.raises(TinkerError, match=told):
            adam_settings({"adam_params": {"learning_rate": 1.0} | change})
    with pytest.raises(TinkerError, match="optimizer_params.type is 'dimuon'; this service has Adam only"):
        adam_settings({"optimizer_params": {"type": "dimuon"}})


def test_create_model_has_the_protocols_defaults():
    body = {"session_id": "s", "model_seq_id": 2, "base_model": "tiny", "user_metadata": {"a": "1"}}
    asked = CreateModel.of(body)
    assert (asked.settings.rank, asked.settings.alpha, asked.settings.targets) == (
        32, 32.0, ("attention", "mlp", "unembedding"),
    )  # fmt: skip
    few = CreateModel.of(body | {"lora_config": {"rank": 4, "seed": 5, "train_mlp": False}}).settings
    assert (few.rank, few.seed, few.targets) == (4, 5, ("attention", "unembedding"))
    for change, told in (
        ({"lora_config": {"rank": 0}}, "lora_config.rank is 0; it must be an integer from 1 to 4096"),
        ({"user_metadata": {"a": math.inf}}, "user_metadata is"),
        ({"user_metadata": {"a": "\ud800"}}, "of whole characters"),
        ({"optimizer_config": {"type": "dimuon"}}, "optimizer_config.type is 'dimuon'"),
    ):
        with pytest.raises(TinkerError, match=told):
            CreateModel.of(body | change)


def test_paths_cannot_leave_the_store():
    path = TinkerPath.of("tinker://s:train:0/weights/step-1")
    assert (path.model, path.id, str(path)) == ("s:train:0", "weights/step-1", "tinker://s:train:0/weights/step-1")
    for wrong in ("tinker://m/weights/..", "tinker://m/weights/a/b", "tinker://m/other/a", "file://m/weights/a",
                  "tinker:///weights/a", "tinker://m/weights/", "tinker://m/weights/a\n"):  # fmt: skip
        with pytest.raises(TinkerError, match="path is"):
            TinkerPath.of(wrong)
    for name in ("..", "a/b", "", ".hidden", "a" * 201, "a\\b", "\0"):
        with pytest.raises(TinkerError, match="path is"):
            SaveWeights.of({"path": name}, for_sampler=False)
    with pytest.raises(TinkerError, match="path is missing"):
        SaveWeights.of({}, for_sampler=True)
    with pytest.raises(TinkerError, match="either model_id and seq_id, or session_id"):
        LoadWeights.of({"path": "tinker://m/weights/a", "session_id": "s", "model_id": "m"})


def test_sampling():
    asked = Sampling.of(sample_body(sampling_params={"stop": None, "top_k": -1, "max_tokens": None}))
    settings = asked.request.settings
    assert (settings.stop, settings.end_ids, settings.top_k, settings.max_tokens) == ((), None, None, None)
    assert (settings.temperature, settings.prompt_logprobs) == (1.0, None)
    for stop, found in (([], ((), ())), ("x", (("x",), None)), ([5, 6], ((5, 6), None)), (["a"], (("a",), None))):
        settings = Sampling.of(sample_body(sampling_params={"stop": stop})).request.settings
        assert (settings.stop, settings.end_ids) == found
    asked = Sampling.of(sample_body(prompt_logprobs=True, topk_prompt_logprobs=3, num_samples=2))
    assert (asked.request.settings.prompt_logprobs, asked.request.samples) == (3, 2)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sampling_params": {"temperature": -1}}, "sampling_params.temperature is -1"),
        ({"sampling_params": {"temperature": math.nan}}, "sampling_params.temperature is nan"),
        ({"sampling_params": {"top_p": 1.5}}, "sampling_params.top_p is 1.5; it must be a number from 0 to 1"),
        ({"sampling_params": {"top_k": 0}}, "sampling_params.top_k is 0"),
        ({"sampling_params": {"max_tokens": 0}}, "sampling_params.max_tokens is 0"),
        ({"sampling_params": {"stop": [1, "a"]}}, "sampling_params.stop is"),
        ({"sampling_params": {"stop": ""}}, "sampling_params.stop is ''"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"topk_sample_logprobs": 5000}, "topk_sample_logprobs is 5000"),
        ({"prompt": {"chunks": []}}, "prompt is 'empty'"),
        ({"prompt": chunks(None)}, r"prompt.chunks\[0\].tokens is None"),
        ({"prompt": chunks(-1)}, r"prompt.chunks\[0\].tokens is -1"),
        ({"prompt_alt_tokens_k": -1}, "prompt_alt_tokens_k is -1"),
        ({"target_prompt_logprobs": tensor([1, 2, 3], "int64")}, r"target_prompt_logprobs has the shape \(3,\)"),
        ({"target_prompt_logprobs": tensor([1, -2], "int64", shape=[2, 1])}, "has at most 1000000 token ids, and -1"),
        ({"target_prompt_logprobs": tensor([1.0, 2.0], shape=[2, 1])}, "must be of int64"),
    ],
)
def test_settings_are_refused_by_the_protocols_names(change, told):
    with pytest.raises(TinkerError, match=told):
        Sampling.of(sample_body(**change))


# ------------------------------------------------------------------------------------------- the real client's codecs


@pytest.fixture
def client():
    pytest.importorskip("tinker")
    from tinker.proto import request_conv, response_conv

    return request_conv, response_conv


def test_a_loss_request_of_the_clients_protobuf(client):
    from tinker import types
    from tinker.types.forward_backward_input import ForwardBackwardInput
    from tinker.types.forward_backward_request import ForwardBackwardRequest

    datum = types.Datum(
        model_input=types.ModelInput.from_ints([1, 2]),
        loss_fn_inputs={"target_tokens": [2, 3], "logprobs": [-1.5, -2.0], "advantages": [0.0, 1.0]},
    )
    config = {"clip_low_threshold": 0.5}
    inside = ForwardBackwardInput(data=[datum], loss_fn="ppo", loss_fn_config=config)
    sent = client[0].forward_backward_request_to_proto(
        ForwardBackwardRequest(forward_backward_input=inside, model_id="m", seq_id=3)
    )
    envelope, asked = loss_request_of_protobuf(sent.SerializeToString())
    assert envelope == Envelope("m", 3)
    assert (asked.adapter, asked.loss, asked.config, asked.backward) == ("m", "ppo", config, True)
    (row,) = asked.rows
    assert row.tokens.tolist() == [1, 2] and row.targets.tolist() == [2, 3]
    assert {name: each.tolist() for name, each in row.inputs.items()} == {
        "logprobs": [-1.5, -2.0], "advantages": [0.0, 1.0],
    }  # fmt: skip
    sent.forward_only = True
    assert not loss_request_of_protobuf(sent.SerializeToString())[1].backward
    sent.data[0].loss_fn_inputs["logprobs"].dense = b"123"
    envelope, error = loss_request_of_protobuf(sent.SerializeToString())
    assert envelope == Envelope("m", 3) and "data[0].loss_fn_inputs.logprobs has 3 bytes" in str(error)
    with pytest.raises(TinkerError, match="the body is no ForwardBackwardRequest"):
        loss_request_of_protobuf(b"\xff\xff\xff")


def test_losses_as_the_client_reads_them(client):
    rows = [torch.tensor([-1.0, -2.5]), torch.tensor([-3.0]), torch.tensor([[-1.0, -2.0], [-3.0, -4.0]])]
    answer = LossAnswer(LossResult(6.5, rows, 3))
    read = client[1].deserialize_forward_backward_output(answer.protobuf())
    assert read.metrics == {"loss:sum": 6.5, "trained_tokens:sum": 3.0}
    assert [each["logprobs"].tolist() for each in read.loss_fn_outputs] == [each.tolist() for each in rows]
    plain = answer.json()
    assert plain["loss_fn_outputs"][2]["logprobs"] == {
        "data": [-1.0, -2.0, -3.0, -4.0], "dtype": "float32", "shape": [2, 2],
    }  # fmt: skip


def test_samples_as_the_client_reads_them(client):
    settings = SamplingSettings(logprobs=2, prompt_logprobs=1)
    asked = Sampling("s", 0, None, None, SampleRequest([1, 2, 3], settings), last=1, prompt_logprobs=True)
    sample = Sample([7, 8], [-0.5, -1.5], [[(7, -0.5), (1, -2.0)], [(8, -1.5)]], finish="length")
    handle = SampleHandle(asked.request, [sample], [None, -1.0, -2.0], [None, [(2, -1.0)], [(3, -2.0)]], 2)
    answer = SampleAnswer(asked, handle)
    read = client[1].deserialize_sample_response(answer.protobuf())
    (sequence,) = read.sequences
    assert (list(sequence.tokens), list(sequence.logprobs), sequence.stop_reason) == ([7, 8], [-0.5, -1.5], "length")
    assert list(read.prompt_logprobs) == [None, None, -2.0] and read.prompt_cache_hit_tokens == 2
    assert read.topk_prompt_logprobs == [None, None, [(3, -2.0)]]
    assert numpy.isclose(sequence.topk_logprobs_np.logprobs, [[-0.5, -2.0], [-1.5, -99999.0]]).all()
    plain = answer.json()
    assert plain["prompt_logprobs"] == [None, None, -2.0] and plain["topk_prompt_logprobs"] == [None, None, [[3, -2.0]]]
