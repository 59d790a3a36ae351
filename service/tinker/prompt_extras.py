"""What a request for samples may ask of its prompt's places: scores of other tokens, and tokens drawn for them."""

from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from llm.engine import Engine
from llm.prompt_scores import draws, target_scores
from llm.sample_result import SampleHandle
from llm.sampling_settings import MOST_ALTERNATIVES
from service.tinker import tinker_protobuf
from service.tinker.tinker_fields import Fields, Json
from service.web.tinker_error import TinkerError

_MOST_CELLS = 1_000_000  # scores that one request may ask for
_NOTHING = -1  # stands where no score is wanted


@dataclass(frozen=True)
class PromptExtras:
    """What is asked.

    Attributes:
        targets: (N - 1, K) tokens whose logprobs are wanted, -1 for none; None where none are.
        sparse: whether `targets` came as cells of a table that is empty elsewhere: (crow, col).
        draws: how many tokens are to be drawn for each place.
    """

    targets: Tensor | None = None
    sparse: tuple[list[int], list[int]] | None = None
    draws: int = 0

    @staticmethod
    def of(given: Fields, length: int, tensor: Any) -> "PromptExtras":
        """Read it from a request.

        Args:
            given: the request's fields.
            length: tokens of the prompt.
            tensor: reads a tensor; cells that a sparse one doesn't name are `-1`.

        Raises:
            TinkerError: it can't be used.
        """
        drawn = given.whole("prompt_alt_tokens_k", 0, most=MOST_ALTERNATIVES)
        if not given.has("target_prompt_logprobs"):
            return PromptExtras(draws=drawn)
        inside = given.inside("target_prompt_logprobs")
        found: Tensor = tensor(inside, _NOTHING)
        if found.is_floating_point() or found.dim() != 2 or len(found) != max(0, length - 1):
            raise TinkerError(
                f"target_prompt_logprobs has the shape {tuple(found.shape)}; it must be of int64 and of the shape "
                f"({max(0, length - 1)}, K): a row for each token of the prompt but the first"
            )
        if found.numel() > _MOST_CELLS or (found.numel() and int(found.min()) < _NOTHING):
            raise TinkerError(f"target_prompt_logprobs has at most {_MOST_CELLS} token ids, and -1 for none")
        cells = None
        if inside.has("sparse_crow_indices"):
            cells = inside.listed("sparse_crow_indices"), inside.listed("sparse_col_indices")
        return PromptExtras(found, cells, drawn)

    @property
    def any(self) -> bool:
        """Whether anything is asked."""
        return self.targets is not None or self.draws > 0

    def found(self, engine: Engine, handle: SampleHandle) -> "FoundExtras":
        """Find what is asked, on the engine's thread.

        Args:
            engine: the engine.
            handle: the request, whose samples have ended.

        Raises:
            EngineError: a token is unknown, or the weights are gone.
        """
        request = handle.request
        prompt = torch.tensor(request.prompt, dtype=torch.int64)
        scores = drawn = None
        if self.targets is not None:
            wanted = self.targets != _NOTHING
            scores = target_scores(engine, request.adapter, prompt, self.targets.clamp(min=0))
            scores = torch.where(wanted, scores, torch.zeros(()))
        if self.draws:
            settings = request.settings
            drawn = draws(engine, request.adapter, prompt, self.draws, settings.temperature, settings.seed)
        return FoundExtras(scores, self.sparse, drawn)


@dataclass(frozen=True)
class FoundExtras:
    """What was found.

    Attributes:
        scores: (N - 1, K) logprobs, 0 where none were wanted; None where there are none.
        sparse: cells of `scores` that were wanted, (crow, col); None for all.
        draws: tokens (N - 1, K) and their logprobs; None where there are none.
    """

    scores: Tensor | None = None
    sparse: tuple[list[int], list[int]] | None = None
    draws: tuple[Tensor, Tensor] | None = None

    def json(self) -> Json:
        """Return it as fields of a sample's answer."""
        told: Json = {}
        if self.scores is not None:
            values, cells = self._values(self.scores)
            told["target_prompt_logprobs"] = {
                "data": values.tolist(), "dtype": "float32", "shape": list(self.scores.shape),
            } | cells  # fmt: skip
        if self.draws is not None:
            kinds = (("tokens", "int64"), ("logprobs", "float32"))
            told["prompt_alt_tokens"] = {
                name: {"data": each.flatten().tolist(), "dtype": kind, "shape": list(each.shape)}
                for (name, kind), each in zip(kinds, self.draws, strict=True)
            }
        return told

    def fill(self, told: Any) -> None:
        """Write it into a SampleResponse."""
        if self.scores is not None:
            values, _ = self._values(self.scores)
            _fill(told.target_prompt_logprobs, values, "<f4", list(self.scores.shape), self.sparse)
        if self.draws is not None:
            tokens, logprobs = self.draws
            _fill(told.prompt_alt_tokens.tokens, tokens.flatten(), "<i8", list(tokens.shape))
            _fill(told.prompt_alt_tokens.logprobs, logprobs.flatten(), "<f4", list(logprobs.shape))

    def _values(self, scores: Tensor) -> tuple[Tensor, Json]:
        if self.sparse is None:
            return scores.flatten(), {}
        crow, col = self.sparse
        rows = numpy.repeat(numpy.arange(len(scores)), numpy.diff(crow))
        cells = {"sparse_crow_indices": crow, "sparse_col_indices": col}
        return scores[torch.from_numpy(rows), torch.tensor(col, dtype=torch.int64)], cells


def _fill(
    tensor: Any, values: Tensor, kind: str, shape: list[int], sparse: tuple[list[int], list[int]] | None = None
) -> None:
    data = numpy.ascontiguousarray(values.numpy(), dtype=kind).tobytes()
    if sparse is None:
        tensor.dense = data
    else:
        tensor.sparse_csr.values = data
        tensor.sparse_csr.crow_indices, tensor.sparse_csr.col_indices = (
            numpy.array(each, dtype="<i8").tobytes() for each in sparse
        )
    tensor.dtype = tinker_protobuf.FLOAT32 if kind == "<f4" else tinker_protobuf.INT64
    tensor.shape.extend(shape)
