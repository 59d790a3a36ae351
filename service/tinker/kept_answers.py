"""Answers as they are kept in the journal: what is read back is told by the same bytes, as JSON and as protobuf."""

import json
from collections.abc import Mapping
from typing import Any

import numpy
import torch

from llm.loss_pass import LossResult
from service.openai.openai_answers import to_json
from service.tinker.tinker_fields import Json
from service.tinker.tinker_messages import Answer, LossAnswer, PlainAnswer
from service.web.tinker_error import TinkerError


class ToldAnswer(Answer):
    """An answer of which only its two forms are known any more.

    Args:
        text: as JSON.
        packed: as protobuf; None where there is no such form.
    """

    def __init__(self, text: bytes, packed: bytes | None) -> None:
        self._text, self._packed = text, packed

    def json(self) -> Json:
        """Return it as JSON."""
        found: Json = json.loads(self._text)
        return found

    def protobuf(self) -> bytes | None:
        """Return it as protobuf."""
        return self._packed


def pack(ended: Answer | TinkerError) -> tuple[Json, bytes]:
    """Return what came of a request as fields and bytes.

    Args:
        ended: its answer, or why there is none.
    """
    if isinstance(ended, TinkerError):
        fields = {"form": "error", "message": ended.message, "status": ended.status, "category": ended.category}
        return fields, b""
    if isinstance(ended, ToldAnswer) or not isinstance(ended, PlainAnswer | LossAnswer):
        text, packed = to_json(ended.json()), ended.protobuf()
        return {"form": "told", "json": len(text), "protobuf": packed is not None}, text + (packed or b"")
    if isinstance(ended, PlainAnswer):
        return {"form": "plain", "fields": ended.fields}, b""
    result = ended.result
    shapes = [list(each.shape) for each in result.logprobs]
    rows = [numpy.ascontiguousarray(each.numpy(), dtype="<f4").tobytes() for each in result.logprobs]
    return {"form": "loss", "loss": result.loss, "trained": result.trained_tokens, "shapes": shapes}, b"".join(rows)


def unpack(fields: Mapping[str, Any], content: bytes) -> Answer | TinkerError:
    """Return what `pack` was given.

    Args:
        fields: its fields.
        content: its bytes.
    """
    form = fields["form"]
    if form == "error":
        return TinkerError(fields["message"], fields["status"], fields["category"])
    if form == "plain":
        return PlainAnswer(fields["fields"])
    if form == "told":
        size = fields["json"]
        return ToldAnswer(content[:size], content[size:] if fields["protobuf"] else None)
    logprobs, at = [], 0
    whole = torch.from_numpy(numpy.frombuffer(content, "<f4").astype(numpy.float32))
    for shape in fields["shapes"]:
        size = shape[0] * (shape[1] if len(shape) == 2 else 1)
        logprobs.append(whole[at : at + size].reshape(shape))
        at += size
    return LossAnswer(LossResult(fields["loss"], logprobs, fields["trained"]))
