"""Requests and results of the Tinker protocol: read from JSON and protobuf, checked, and written as either.

A request becomes what llm/ understands (`LossRequest`, `AdamSettings`, `SampleRequest`), so that nothing behind this
module knows the protocol. What a client sends wrongly is a `TinkerError` which names the field, what was given and what
is allowed. Numbers that are not finite are refused where they would be used; JSON's NaN is read so that the refusal can
name the field. What a tensor holds is judged by the engine, which knows vocabulary and context.

Results are kept as numbers until a client asks for them: which form it wants is known by its Accept header only then.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from torch import Tensor

from llm.adam import AdamSettings
from llm.engine_error import EngineError
from llm.loss_pass import LossRequest, LossResult, LossRow
from llm.sample_result import LENGTH, SampleHandle
from llm.sampling_settings import SampleRequest, SamplingSettings, SettingError
from model.lora import LoraSettings
from model.token_losses import LOSS_SETTINGS
from service.tinker import tinker_protobuf
from service.tinker.prompt_extras import FoundExtras, PromptExtras
from service.tinker.tinker_fields import Fields, Json
from service.web.tinker_error import TinkerError

ALPHA = 32.0  # of every adapter: the protocol's scale is 32 / rank
MOST_RANK = 4096
NO_LOGPROB = -99999.0  # in the protocol's tables of likeliest tokens, where there is none
_TYPES: dict[str, Any] = {"float32": numpy.dtype("<f4"), "int64": numpy.dtype("<i8")}
_PROTOBUF_TYPES = {tinker_protobuf.FLOAT32: "float32", tinker_protobuf.INT64: "int64"}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,=+-]{0,199}")
# Of each kind of checkpoint the type that clients are told.
CHECKPOINT_TYPES = {"weights": "training", "sampler_weights": "sampler", "external_weights": "external"}
_NO_STABLE = "stable_reinforce is not supported: train with importance_sampling, ppo, cispo or dro (loss_fn=...)"
_MOST_CELLS = 100_000_000  # of a sparse tensor made whole

# ------------------------------------------------------------------------------------------------------------ requests


@dataclass(frozen=True)
class CreateModel:
    """A request for a new adapter.

    Attributes:
        session: id of the session.
        number: place among the models of the session.
        base_model: name of the base model.
        settings: rank, layers, seed.
        metadata: data of the user's own.
    """

    session: str
    number: int
    base_model: str
    settings: LoraSettings
    metadata: Json | None

    @staticmethod
    def of(body: Json) -> "CreateModel":
        """Read it from JSON."""
        given = Fields(body)
        session, number = given.text("session_id"), given.whole("model_seq_id")
        return CreateModel(session, number, given.text("base_model"), _lora(given), given.metadata("user_metadata"))


@dataclass(frozen=True)
class Envelope:
    """What every request of a model begins with: enough to give it its place in the model's order.

    Attributes:
        model: id of the model.
        number: place in its order, from 1; None for the next.
    """

    model: str
    number: int | None

    @staticmethod
    def of(body: Json) -> "Envelope":
        """Read it from JSON."""
        given = Fields(body)
        return Envelope(given.text("model_id"), given.whole("seq_id", least=1) if given.has("seq_id") else None)


def loss_request(body: Json, backward: bool) -> LossRequest:
    """Read a forward or forward_backward from JSON.

    Args:
        body: the request.
        backward: whether it is a forward_backward.
    """
    given = Fields(body)
    inside = given.inside("forward_backward_input" if backward else "forward_input")
    rows = []
    for number, each in enumerate(inside.listed("data")):
        if not isinstance(each, dict):
            raise inside.wrong(f"data[{number}]", each, "it must be an object")
        datum = Fields(each, f"{inside.place}data[{number}].")
        tokens = prompt_tokens(datum.inside("model_input"))
        inputs = datum.inside("loss_fn_inputs")
        tensors = {name: _json_tensor(inputs.inside(name)) for name in datum.mapping("loss_fn_inputs")}
        rows.append(_row(tokens, tensors, datum.place))
    return _loss(Envelope.of(body).model, rows, inside.text("loss_fn"), inside.mapping("loss_fn_config"), backward)


def loss_request_of_protobuf(body: bytes) -> tuple[Envelope, "LossRequest | TinkerError"]:
    """Read a forward or forward_backward from protobuf.

    Returns:
        Whose it is, and the request; in its place an error, where only its contents are wrong.
    """
    asked = tinker_protobuf.message("ForwardBackwardRequest")
    try:
        asked.ParseFromString(body)
    except Exception as error:  # the runtime's DecodeError, in whichever of its implementations is installed
        raise TinkerError(f"the body is no ForwardBackwardRequest: {error}") from error
    if not asked.model_id:
        raise TinkerError("model_id is missing; it must be a string")
    if asked.seq_id < 0:
        raise TinkerError(f"seq_id is {asked.seq_id}; it must be an integer of 1 or more")
    envelope = Envelope(asked.model_id, asked.seq_id or None)
    try:
        rows = []
        for number, datum in enumerate(asked.data):
            place = f"data[{number}]."
            tensors = {name: _protobuf_tensor(tensor, f"{place}loss_fn_inputs.{name}")
                       for name, tensor in datum.loss_fn_inputs.items()}  # fmt: skip
            rows.append(_row(_protobuf_tokens(datum.model_input, place), tensors, place))
        config = dict(asked.loss_fn_config)
        for name, value in asked.loss_fn_config_v2.items():
            config[name] = value.text if value.WhichOneof("value") == "text" else value.number
        return envelope, _loss(asked.model_id, rows, asked.loss_fn, config, not asked.forward_only)
    except TinkerError as error:
        return envelope, error


def adam_settings(body: Json) -> AdamSettings:
    """Read the settings of an optim_step from JSON."""
    given = Fields(body)
    if given.has("optimizer_params") and not given.has("adam_params"):
        kind = given.inside("optimizer_params").raw("type")
        raise TinkerError(f"optimizer_params.type is {kind!r}; this service has Adam only: send adam_params")
    inside = given.inside("adam_params")
    names = ("beta1", "beta2", "eps", "weight_decay", "grad_clip_norm")
    others = {name: inside.number(name) for name in names if inside.has(name)}
    try:
        return AdamSettings(inside.number("learning_rate"), **others)
    except EngineError as error:
        raise TinkerError(str(error)) from error


@dataclass(frozen=True)
class SaveWeights:
    """A request to keep a model's weights.

    Attributes:
        name: name of the checkpoint; None to sample from it at once, with `session_number`.
        session_number: place of the sampling session among those of the session.
        ttl_seconds: how long it is kept; None for ever.
        overwrite: whether one of this name is replaced.
        metadata: data of the user's own.
        external: whether it is kept to be downloaded.
    """

    name: str | None
    session_number: int | None
    ttl_seconds: int | None
    overwrite: bool
    metadata: Json | None
    external: bool = False

    @staticmethod
    def of(body: Json, for_sampler: bool, external: bool = False) -> "SaveWeights":
        """Read it from JSON.

        Args:
            body: the request.
            for_sampler: whether it is a save_weights_for_sampler.
            external: whether it is a save_weights_external.
        """
        given = Fields(body)
        if given.raw("age_encryption_recipients"):
            raise given.wrong("age_encryption_recipients", given.raw("age_encryption_recipients"),
                              "files are not encrypted here: download them and encrypt them yourself")  # fmt: skip
        name = checkpoint_name(given.text("path")) if given.has("path") else None
        number = given.whole("sampling_session_seq_id") if given.has("sampling_session_seq_id") else None
        if name is None and (number is None or not for_sampler):
            raise TinkerError("path is missing; it must be a name, such as step-100")
        if given.text("kind", "snapshot") not in ("snapshot", "inflight"):
            raise given.wrong("kind", given.raw("kind"), "it must be snapshot")
        if given.raw("kind") == "inflight":
            raise given.wrong("kind", "inflight", "weights that change while they are sampled from are not supported: "
                              "use snapshot")  # fmt: skip
        ttl = given.whole("ttl_seconds", least=1) if given.has("ttl_seconds") else None
        overwrite = for_sampler or external or given.flag("overwrite")
        return SaveWeights(name, number, ttl, overwrite, given.metadata("user_metadata"), external)


@dataclass(frozen=True)
class LoadWeights:
    """A request to go on from a checkpoint: of a model that there is, or of a new one.

    Attributes:
        path: path of the checkpoint.
        optimizer: whether the optimizer goes on too.
        session: id of the session, where a new model is made.
        number: place of the new model among the models of the session.
        base_model: base model that is expected; None for the checkpoint's.
        metadata: data of the user's own.
    """

    path: "TinkerPath"
    optimizer: bool
    session: str | None
    number: int
    base_model: str | None
    metadata: Json | None

    @staticmethod
    def of(body: Json) -> "LoadWeights":
        """Read it from JSON."""
        given = Fields(body)
        new = given.has("session_id")
        if new == given.has("model_id"):
            raise TinkerError("load_weights needs either model_id and seq_id, or session_id and model_seq_id")
        return LoadWeights(
            TinkerPath.of(given.text("path")), given.flag("optimizer"), given.text("session_id") if new else None,
            given.whole("model_seq_id") if new else 0, given.text("base_model") if given.has("base_model") else None,
            given.metadata("user_metadata"),
        )  # fmt: skip


@dataclass(frozen=True)
class TinkerPath:
    """A checkpoint's address, such as tinker://MODEL/weights/NAME.

    Attributes:
        model: id of the model.
        kind: weights, with the optimizer; sampler_weights; or external_weights, to be downloaded.
        name: name of the checkpoint.
    """

    model: str
    kind: str
    name: str

    @staticmethod
    def of(text: str) -> "TinkerPath":
        """Read it from its text.

        Raises:
            TinkerError: it is none.
        """
        scheme, _, rest = text.partition("://")
        parts = rest.split("/")
        if scheme != "tinker" or len(parts) != 3 or parts[1] not in CHECKPOINT_TYPES or not parts[0]:
            raise TinkerError(
                f"path is {text[:200]!r}; it must be tinker://MODEL/weights/NAME or "
                "tinker://MODEL/sampler_weights/NAME, as a save answers it"
            )
        return TinkerPath(parts[0], parts[1], checkpoint_name(parts[2]))

    @property
    def id(self) -> str:
        """The checkpoint's id within its model."""
        return f"{self.kind}/{self.name}"

    def __str__(self) -> str:
        return f"tinker://{self.model}/{self.id}"


def checkpoint_name(text: str) -> str:
    """Return a checkpoint's name, which is a file's too.

    Raises:
        TinkerError: it can't be one.
    """
    if not _NAME.fullmatch(text):
        raise TinkerError(
            f"path is {text[:200]!r}; a checkpoint's name has 1 to 200 letters, digits and . , _ = + -, and begins "
            "with a letter, a digit or _"
        )
    return text


@dataclass(frozen=True)
class Sampling:
    """A request for samples.

    Attributes:
        session: id of the sampling session; None where the model is named.
        number: place among the requests of the sampling session; None for none.
        base_model: name of the base model, where there is no session and no path.
        path: checkpoint, where there is no session.
        request: what is asked; which weights answer is found out by the names above.
        last: how many of the prompt's logprobs are wanted, from its end; None for all.
        prompt_logprobs: whether the prompt's logprobs are wanted.
        extras: what else is wanted of the prompt's places.
    """

    session: str | None
    number: int | None
    base_model: str | None
    path: TinkerPath | None
    request: SampleRequest
    last: int | None
    prompt_logprobs: bool
    extras: PromptExtras = field(default_factory=PromptExtras)

    @staticmethod
    def of(body: Json) -> "Sampling":
        """Read it from JSON."""
        given = Fields(body)
        if given.raw("record_stability_info"):
            raise given.wrong("record_stability_info", True, _NO_STABLE)
        prompt = prompt_tokens(given.inside("prompt"))
        wanted, likeliest = given.flag("prompt_logprobs"), given.whole("topk_prompt_logprobs", 0)
        inside = given.inside("sampling_params", required=False)
        stop, ends = _stops(inside)
        try:
            settings = SamplingSettings.of(
                temperature=inside.number("temperature", 1.0),
                top_p=inside.number("top_p", 1.0, most=1.0),
                top_k=inside.whole("top_k", -1, least=-1),
                seed=inside.whole("seed", least=-(2**63), most=2**64) if inside.has("seed") else None,
                max_tokens=inside.whole("max_tokens", least=1) if inside.has("max_tokens") else None,
                stop=stop,
                end_ids=ends,
                logprobs=given.whole("topk_sample_logprobs", 0),
                prompt_logprobs=likeliest if wanted or likeliest else None,
            )
            request = SampleRequest(prompt, settings, given.whole("num_samples", 1, least=1))
        except SettingError as error:
            raise setting_refused(error) from error
        last = None
        if given.has("prompt_logprobs_last_n"):
            last = given.whole("prompt_logprobs_last_n", least=1, most=max(len(prompt) - 1, 1))
        return Sampling(
            given.text("sampling_session_id") if given.has("sampling_session_id") else None,
            given.whole("seq_id") if given.has("seq_id") else None,
            given.text("base_model") if given.has("base_model") else None,
            TinkerPath.of(given.text("model_path")) if given.has("model_path") else None,
            request, last, wanted, PromptExtras.of(given, len(prompt), _json_tensor),
        )  # fmt: skip


def setting_refused(error: SettingError) -> TinkerError:
    """Return what the sampler refuses by the protocol's names of its settings."""
    name = {
        "samples": "num_samples", "prompt": "prompt", "logprobs": "topk_sample_logprobs",
        "prompt_logprobs": "topk_prompt_logprobs",
    }.get(error.field, f"sampling_params.{error.field}")  # fmt: skip
    return TinkerError(f"{name} is {error.given!r}; {error.allowed}")


def prompt_tokens(given: Fields) -> list[int]:
    """Return the tokens of a model input: its chunks laid end to end.

    Raises:
        TinkerError: a chunk is no text.
    """
    found: list[int] = []
    for number, chunk in enumerate(given.listed("chunks")):
        name = f"chunks[{number}]"
        if not isinstance(chunk, dict):
            raise given.wrong(name, chunk, "it must be an object")
        inside = Fields(chunk, f"{given.place}{name}.")
        if inside.text("type", "encoded_text") != "encoded_text":
            raise inside.wrong("type", chunk["type"], "this model reads text only: encoded_text")
        tokens = inside.listed("tokens")
        for each in tokens:
            if type(each) is not int or not 0 <= each < 2**31:
                raise inside.wrong("tokens", each, "tokens are integers of 0 or more")
        found += tokens
    return found


def _lora(given: Fields) -> LoraSettings:
    if given.has("optimizer_config"):
        kind = given.inside("optimizer_config").text("type", "adamw")
        if kind != "adamw":
            raise given.wrong("optimizer_config.type", kind, "this service has adamw only")
    inside = given.inside("lora_config", required=False)
    switches = (("attention", "train_attn"), ("mlp", "train_mlp"), ("unembedding", "train_unembed"))
    targets = tuple(target for target, name in switches if inside.flag(name, True))
    if not targets:
        raise TinkerError("lora_config trains nothing: set train_attn, train_mlp or train_unembed")
    seed = inside.whole("seed", least=-(2**63)) if inside.has("seed") else 0
    return LoraSettings(inside.whole("rank", 32, least=1, most=MOST_RANK), ALPHA, targets, seed=seed)


def _stops(given: Fields) -> tuple[tuple[str | int, ...], tuple[int, ...] | None]:
    """Return what ends a sample: strings and ids, and the model's own ends (None) or none."""
    stop = given.raw("stop")
    if stop is None:
        return (), None
    if isinstance(stop, str):
        return (stop,), None
    allowed = "it must be a string, a list of strings, a list of token ids, or null"
    if not isinstance(stop, list):
        raise given.wrong("stop", stop, allowed)
    if not all(isinstance(each, str) for each in stop) and not all(type(each) is int for each in stop):
        raise given.wrong("stop", stop, allowed)
    return tuple(stop), None if stop else ()


def _loss(model: str, rows: Sequence[LossRow], loss: str, config: Mapping[str, object], backward: bool) -> LossRequest:
    if loss not in LOSS_SETTINGS:
        raise TinkerError(f"loss_fn is {loss!r}; this service has {', '.join(LOSS_SETTINGS)}")
    numbers: dict[str, float] = {}
    for name, value in config.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TinkerError(f"loss_fn_config.{name} is {value!r}; it must be a number")
        numbers[name] = float(value)
    return LossRequest(model, rows, loss, numbers, backward)


def _row(tokens: Sequence[int] | Tensor, tensors: Mapping[str, Tensor], place: str) -> LossRow:
    if "target_tokens" not in tensors:
        raise TinkerError(f"{place}loss_fn_inputs.target_tokens is missing; every loss needs it")
    targets = tensors["target_tokens"]
    if targets.is_floating_point():
        raise TinkerError(f"{place}loss_fn_inputs.target_tokens is of floats; it must be int64")
    inputs = {name: tensor.float() for name, tensor in tensors.items() if name != "target_tokens"}
    return LossRow(torch.as_tensor(tokens, dtype=torch.int64), targets, inputs)


def _json_tensor(given: Fields, empty: int = 0) -> Tensor:
    kind = given.text("dtype", "float32")
    if kind not in _TYPES:
        raise given.wrong("dtype", kind, f"allowed are {', '.join(_TYPES)}")
    data = given.listed("data")
    allowed = f"it must be a flat list of numbers of {kind}"
    for each in data:
        if type(each) is not int and (type(each) is not float or (kind == "int64" and not each.is_integer())):
            raise given.wrong("data", each, allowed)
    try:
        with numpy.errstate(over="ignore"):  # what float32 can't hold is infinite, and refused as that
            values = numpy.array(data, dtype=_TYPES[kind])
    except (OverflowError, ValueError) as error:
        raise given.wrong("data", "a number too large", allowed) from error
    shape = [each if type(each) is int else -1 for each in given.listed("shape")] if given.has("shape") else None
    sparse = None
    if given.has("sparse_crow_indices"):
        try:
            sparse = tuple(
                numpy.array(given.listed(f"sparse_{name}_indices"), dtype=numpy.int64) for name in ("crow", "col")
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise TinkerError(f"{given.place}sparse_crow_indices and sparse_col_indices must be integers") from error
    return _tensor(values, shape, sparse, given.place.removesuffix("."), empty)


def _protobuf_tensor(tensor: Any, place: str) -> Tensor:
    kind = _PROTOBUF_TYPES.get(tensor.dtype)
    if kind is None:
        raise TinkerError(f"{place}.dtype is number {tensor.dtype}; allowed are 1 (float32) and 2 (int64)")
    sparse = None
    data = tensor.dense
    if tensor.WhichOneof("data") == "sparse_csr":
        data = tensor.sparse_csr.values
        sparse = (
            _array(tensor.sparse_csr.crow_indices, "<i8", place),
            _array(tensor.sparse_csr.col_indices, "<i8", place),
        )
    return _tensor(_array(data, _TYPES[kind], place), list(tensor.shape) or None, sparse, place)


def _tensor(values: Any, shape: list[int] | None, sparse: Any, place: str, empty: int = 0) -> Tensor:
    """Return values in their shape; of a sparse tensor the cells that it names, the others empty."""
    if shape is not None and (not 1 <= len(shape) <= 2 or min(shape) < 0):
        raise TinkerError(f"{place}.shape is {shape}; allowed are [T] and [T, K]")
    if sparse is None:
        if shape is not None and shape[0] * (shape[1] if len(shape) == 2 else 1) != len(values):
            raise TinkerError(f"{place} has {len(values)} numbers; its shape is {shape}")
        return torch.from_numpy(values.copy()).reshape(shape or [-1])
    crow, col = sparse
    if shape is None or len(shape) != 2 or len(crow) != shape[0] + 1 or shape[0] * shape[1] > _MOST_CELLS:
        raise TinkerError(f"{place}: a sparse tensor needs a shape [T, K] and T + 1 sparse_crow_indices")
    sound = len(col) == len(values) and crow[0] == 0 and crow[-1] == len(col) and bool((numpy.diff(crow) >= 0).all())
    if not sound or (len(col) and not (col.min() >= 0 and col.max() < shape[1])):
        raise TinkerError(f"{place}: its sparse indices don't fit its shape {shape} and its {len(values)} numbers")
    whole = numpy.full(shape, empty, values.dtype)
    whole[numpy.repeat(numpy.arange(shape[0]), numpy.diff(crow)), col] = values
    return torch.from_numpy(whole)


def _protobuf_tokens(chunks: Any, place: str) -> Tensor:
    parts = []
    for number, chunk in enumerate(chunks):
        if chunk.WhichOneof("chunk") != "encoded_text":
            kind = chunk.WhichOneof("chunk") or "unknown"
            raise TinkerError(f"{place}model_input[{number}] is {kind}; this model reads text only: encoded_text")
        parts.append(_array(chunk.encoded_text.tokens, "<i4", f"{place}model_input[{number}].tokens"))
    whole = numpy.concatenate(parts) if parts else numpy.zeros(0, "<i4")
    return torch.from_numpy(whole.astype(numpy.int64))


def _array(data: bytes, kind: Any, place: str) -> Any:
    kind = numpy.dtype(kind)
    if len(data) % kind.itemsize:
        raise TinkerError(f"{place} has {len(data)} bytes; that is no whole number of {kind.itemsize} bytes each")
    return numpy.frombuffer(data, kind)


# ------------------------------------------------------------------------------------------------------------- results


class Answer:
    """What a promise ends with."""

    def json(self) -> Json:
        """Return it as JSON."""
        raise NotImplementedError

    def protobuf(self) -> bytes | None:
        """Return it as protobuf; None where the protocol has no such form of it."""
        return None


@dataclass(frozen=True)
class PlainAnswer(Answer):
    """An answer that is small.

    Attributes:
        fields: its fields.
    """

    fields: Json

    def json(self) -> Json:
        """Return it as JSON."""
        return self.fields


@dataclass(frozen=True)
class LossAnswer(Answer):
    """The answer to a forward or forward_backward.

    Attributes:
        result: what the engine found.
    """

    result: LossResult

    @property
    def metrics(self) -> dict[str, float]:
        """Numbers by name; how chunks of a batch are put together stands behind the colon."""
        return {"loss:sum": self.result.loss, "trained_tokens:sum": float(self.result.trained_tokens)}

    def json(self) -> Json:
        """Return it as JSON."""
        outputs = [{"logprobs": {"data": each.flatten().tolist(), "dtype": "float32", "shape": list(each.shape)}}
                   for each in self.result.logprobs]  # fmt: skip
        return {"loss_fn_output_type": "ArrayRecord", "loss_fn_outputs": outputs, "metrics": self.metrics}

    def protobuf(self) -> bytes:
        """Return it as protobuf."""
        told = tinker_protobuf.message("ForwardBackwardOutput")
        told.loss_fn_output_type = "ArrayRecord"
        told.metrics.update(self.metrics)
        for rows in _runs(self.result.logprobs):
            record = told.loss_fn_outputs.add(type_tag="ArrayRecord", num_datums=len(rows))
            tensor = record.fields["logprobs"]
            parts = [_bytes(each.numpy(), "<f4") for each in rows]
            tensor.data, tensor.dtype = b"".join(parts), tinker_protobuf.FLOAT32
            tensor.offsets = _bytes(numpy.cumsum([0, *map(len, parts)]), "<i8")
            tensor.trailing_shape.extend(rows[0].shape[1:])
        return told.SerializeToString(deterministic=True)


@dataclass(frozen=True)
class SampleAnswer(Answer):
    """The answer to a request for samples.

    Attributes:
        asked: the request.
        handle: its samples, all ended.
        extras: what else was found of the prompt's places.
    """

    asked: Sampling
    handle: SampleHandle = field(repr=False)
    extras: FoundExtras = field(default_factory=FoundExtras)

    def json(self) -> Json:
        """Return it as JSON."""
        sequences: list[Json] = []
        for sample in self.handle.samples:
            told: Json = {"stop_reason": "length" if sample.finish == LENGTH else "stop"}
            told |= {"tokens": list(sample.tokens), "logprobs": list(sample.logprobs)}
            if self.asked.request.settings.logprobs:
                told["topk_logprobs"] = [[list(pair) for pair in row] for row in sample.likeliest or []]
            sequences.append(told)
        whole: Json = {"type": "sample", "sequences": sequences, "prompt_cache_hit_tokens": self.handle.cached_tokens}
        if self.asked.prompt_logprobs:
            whole["prompt_logprobs"] = self._prompt_logprobs()
        if self.asked.request.settings.prompt_logprobs:
            whole["topk_prompt_logprobs"] = [None if row is None else [list(pair) for pair in row]
                                             for row in self._prompt_likeliest()]  # fmt: skip
        return whole | self.extras.json()

    def protobuf(self) -> bytes:
        """Return it as protobuf."""
        told = tinker_protobuf.message("SampleResponse")
        settings = self.asked.request.settings
        for sample in self.handle.samples:
            reason = tinker_protobuf.LENGTH if sample.finish == LENGTH else tinker_protobuf.STOP
            sequence = told.sequences.add(stop_reason=reason)
            sequence.tokens, sequence.logprobs = _bytes(sample.tokens, "<i4"), _bytes(sample.logprobs, "<f4")
            if settings.logprobs:
                _fill_likeliest(sequence.topk_sampled_logprobs, sample.likeliest or [], settings.logprobs)
        told.prompt_cache_hit_tokens = self.handle.cached_tokens
        if self.asked.prompt_logprobs:
            found = [numpy.nan if each is None else each for each in self._prompt_logprobs()]
            told.prompt_logprobs = _bytes(found, "<f4")
        if settings.prompt_logprobs:
            _fill_likeliest(told.topk_prompt_logprobs, self._prompt_likeliest(), settings.prompt_logprobs)
        self.extras.fill(told)
        return told.SerializeToString(deterministic=True)

    def _prompt_logprobs(self) -> list[float | None]:
        found = self.handle.prompt_logprobs or []
        return [each if self._told(place, len(found)) else None for place, each in enumerate(found)]

    def _prompt_likeliest(self) -> list[list[tuple[int, float]] | None]:
        found = self.handle.prompt_likeliest or []
        return [each if self._told(place, len(found)) else None for place, each in enumerate(found)]

    def _told(self, place: int, length: int) -> bool:
        return self.asked.last is None or place >= length - self.asked.last


def _fill_likeliest(table: Any, rows: Sequence[Sequence[tuple[int, float]] | None], wide: int) -> None:
    """Write rows of likeliest tokens as a table, whose missing cells are token 0 of logprob -99999."""
    ids, logprobs = numpy.zeros((len(rows), wide), "<i4"), numpy.full((len(rows), wide), NO_LOGPROB, "<f4")
    for number, row in enumerate(rows):
        for place, (token, logprob) in enumerate((row or [])[:wide]):
            ids[number, place], logprobs[number, place] = token, logprob
    table.token_ids, table.logprobs, table.k, table.length = ids.tobytes(), logprobs.tobytes(), wide, len(rows)


def _runs(rows: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return rows in their order, those beside each other that are equally wide together."""
    runs: list[list[Tensor]] = []
    for row in rows:
        if runs and runs[-1][0].shape[1:] == row.shape[1:]:
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


def _bytes(values: Any, kind: str) -> bytes:
    return numpy.ascontiguousarray(values, dtype=kind).tobytes()
