"""The protobuf messages of the Tinker protocol, from a table of their fields: no generated code.

Only what this service reads and writes is in the table. Fields that it doesn't know are skipped by the runtime.
"""

from functools import cache
from typing import Any

# Of each message its fields: number, name, type; `*` before a type: repeated; `?`: it is known whether it was given;
# `a|` before it: one of the alternatives a; `->` a map from strings.
_MESSAGES: dict[str, tuple[tuple[int, str, str], ...]] = {
    "SparseCsr": ((1, "values", "bytes"), (2, "crow_indices", "bytes"), (3, "col_indices", "bytes")),
    "Tensor": (
        (1, "dense", "data|bytes"), (2, "sparse_csr", "data|SparseCsr"), (3, "dtype", "int32"), (4, "shape", "*int64"),
    ),
    "EncodedTextChunk": ((1, "tokens", "bytes"),),
    "OtherChunk": (),
    "Chunk": (
        (1, "encoded_text", "chunk|EncodedTextChunk"), (2, "image", "chunk|OtherChunk"),
        (3, "dmel", "chunk|OtherChunk"),
    ),
    "Datum": ((1, "model_input", "*Chunk"), (2, "loss_fn_inputs", "->Tensor")),
    "LossConfigValue": ((1, "number", "value|double"), (2, "text", "value|string")),
    "ForwardBackwardRequest": (
        (1, "model_id", "string"), (2, "seq_id", "int32"), (3, "data", "*Datum"), (4, "loss_fn", "string"),
        (5, "loss_fn_config", "->double"), (6, "forward_only", "bool"), (7, "loss_fn_config_v2", "->LossConfigValue"),
    ),
    "BatchedTensor": (
        (1, "data", "bytes"), (2, "offsets", "bytes"), (3, "dtype", "int32"), (4, "trailing_shape", "*int64"),
    ),
    "ArrayRecord": ((1, "type_tag", "string"), (2, "fields", "->BatchedTensor"), (3, "num_datums", "int64")),
    "ForwardBackwardOutput": (
        (1, "loss_fn_output_type", "string"), (2, "loss_fn_outputs", "*ArrayRecord"), (3, "metrics", "->double"),
    ),
    "TopkLogprobs": (
        (1, "token_ids", "bytes"), (2, "logprobs", "bytes"), (3, "k", "uint32"), (4, "length", "uint32"),
    ),
    "SampledSequence": (
        (1, "stop_reason", "int32"), (2, "tokens", "bytes"), (3, "logprobs", "?bytes"),
        (4, "topk_sampled_logprobs", "TopkLogprobs"),
    ),
    "SampleResponse": (
        (1, "sequences", "*SampledSequence"), (2, "prompt_logprobs", "?bytes"),
        (3, "topk_prompt_logprobs", "TopkLogprobs"), (4, "prompt_cache_hit_tokens", "int32"),
        (5, "target_prompt_logprobs", "Tensor"), (6, "prompt_alt_tokens", "PromptAltTokens"),
    ),
    "PromptAltTokens": ((1, "tokens", "Tensor"), (2, "logprobs", "Tensor")),
}  # fmt: skip

# Numbers of the protocol's enumerations, which travel as int32.
FLOAT32, INT64, INT32 = 1, 2, 3
STOP, LENGTH = 0, 1


def message(name: str) -> Any:
    """Return an empty message.

    Args:
        name: its type, such as SampleResponse.
    """
    return _types()[name]()


@cache
def _types() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="tinker.proto", package="tinker_service", syntax="proto3")

    def add(owner: Any, number: int, name: str, kind: str) -> None:
        field = owner.field.add(name=name, number=number, label=kinds.LABEL_OPTIONAL)
        if kind.startswith("->"):
            entry = "".join(part.capitalize() for part in name.split("_")) + "Entry"
            nested = owner.nested_type.add(name=entry)
            nested.options.map_entry = True
            add(nested, 1, "key", "string")
            add(nested, 2, "value", kind[2:])
            field.type, field.label = kinds.TYPE_MESSAGE, kinds.LABEL_REPEATED
            field.type_name = f".tinker_service.{owner.name}.{entry}"
            return
        choice, _, kind = kind.rpartition("|")
        if choice:
            names = [each.name for each in owner.oneof_decl]
            if choice not in names:
                owner.oneof_decl.add(name=choice)
            field.oneof_index = [each.name for each in owner.oneof_decl].index(choice)
        if kind.startswith("*"):
            field.label, kind = kinds.LABEL_REPEATED, kind[1:]
        if kind.startswith("?"):
            kind = kind[1:]
            field.oneof_index, field.proto3_optional = len(owner.oneof_decl), True
            owner.oneof_decl.add(name=f"_{name}")
        if kind in _MESSAGES:
            field.type, field.type_name = kinds.TYPE_MESSAGE, f".tinker_service.{kind}"
        else:
            field.type = getattr(kinds, f"TYPE_{kind.upper()}")

    for name, fields in _MESSAGES.items():
        owner = file.message_type.add(name=name)
        for number, field, kind in fields:
            add(owner, number, field, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tinker_service.{name}"))
            for name in _MESSAGES}  # fmt: skip
