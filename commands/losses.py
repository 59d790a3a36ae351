"""`--losses`: the loss of each row of text under a model, of each word where asked, and what the prompt does to it."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from commands.chat.request import ModelRequest, open_model
from config import ConfigError, ConfigParser
from config.losses_config import LossesConfig
from data.chat_messages import Completion, Conversation, Example, RowError
from data.conversations import open_source
from data.token_row import TokenRow
from evaluation.text_metrics import perplexity_of
from llm.row_losses import asked_tokens, attention_received, attribution, token_losses, words_of
from llm.saved_model import SavedModel, open_base
from model.causal_lm import CausalLM
from storage.files import write_atomically
from storage.log_lines import log_to_stderr
from train.loop.long_phases import long_phase


def command(request: ModelRequest) -> int:
    """Write the loss of each row to a file, a JSON object a line.

    Args:
        request: which model, and the file to write; `ConfigParser` has the settings.

    Returns:
        The exit code.

    Raises:
        ModelError: the model can't be loaded.
        RunNotFoundError: there is no such run.
        ConfigError: there is no file of rows, no file to write, or what is asked for can't be of this model.
        DataError: the rows can't be read.
        OutputError: the file can't be written.
    """
    config = ConfigParser.get(LossesConfig)
    if config.data is None or request.out is None:
        raise ConfigError(["--losses needs rows and a file to write: data=rows.jsonl --out losses.jsonl"])
    _check_out(request.out, request.force)
    source = open_source(config.data)
    log_to_stderr()
    with long_phase(f"loading {request.text}"):
        model = open_model(request, config.device, config.precision)
    base = _base_of(model, config) if config.compare else None
    for line in [*model.lines(), source.told()]:
        sys.stderr.write(f"{line}\n")
    written, rows = [], []
    for found in source.rows():
        made = _row_of(found.example, found.place, model)
        written.append({"place": found.place, **({"error": made} if isinstance(made, str) else {})})
        if not isinstance(made, str):
            rows.append(_Measured(written[-1], made, _texts_of(found.example)))
    _measure(model, base, rows, config)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written)
    write_atomically(request.out, lines.encode("utf-8", "surrogatepass"), setting="--out")
    _tell(model, rows, len(written))
    return 0


@dataclass(frozen=True)
class _Measured:
    """A row: what is written of it, its tokens, and the texts that are read before its answer."""

    written: dict[str, Any]
    row: TokenRow
    texts: tuple[str, ...]


def _texts_of(example: Example | RowError) -> tuple[str, ...]:
    if isinstance(example, Conversation):
        return tuple(str(message.get("content") or "") for message in example.messages[:-1])
    return (example.prompt,) if isinstance(example, Completion) else ()


def _check_out(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise ConfigError([f"--out {path} is there already; --force replaces it, or take another name."])


def _base_of(model: SavedModel, config: LossesConfig) -> SavedModel:
    """Return the base model of a model, to measure it by the same prompts."""
    if model.adapter is not None:
        return model
    if model.record is None:
        raise ConfigError([f"compare = on is for a model that was trained; {model.base.source} is a base model"])
    parameter = next(model.base.model.parameters())
    return open_base(model.record.base_model, parameter.device, parameter.dtype)


def _row_of(example: Example | RowError, place: str, model: SavedModel) -> TokenRow | str:
    """Return the row of an example that has its last answer; or why there is none."""
    try:
        if isinstance(example, RowError):
            raise example
        rows = [row.needed() for row in model.renderer.train_rows(example, place)]
    except RowError as error:
        return str(error)
    rows = [row for row in rows if len(row.ids) > 1]
    if not rows:
        return "there is no answer"
    length = len(rows[-1].ids)
    return rows[-1] if length <= model.base.context else f"{length:,} tokens, more than the context of the model"


def _measure(model: SavedModel, base: SavedModel | None, rows: Sequence[_Measured], config: LossesConfig) -> None:
    """Add to each object what its row has come to."""
    decoder, device = model.base.model, next(model.base.model.parameters()).device
    if (config.attribution or config.attention) and not isinstance(decoder, CausalLM):
        name = "attribution" if config.attribution else "attention"
        raise ConfigError([f"{name} is not for {model.base.source}, which transformers computes"])
    only = [one.row for one in rows]
    own = token_losses(decoder, model.adapter, only, device)
    of_base = token_losses(base.base.model, None, only, device) if base is not None else [None] * len(rows)
    blank = model.base.tokenizer.encode(" ", add_special_tokens=False)[-1]
    for one, losses, before in zip(rows, own, of_base, strict=True):
        written, row = one.written, one.row
        written |= {"loss": _rounded(losses.mean()), "tokens": len(losses), "length": len(row.ids)}
        if before is not None:
            written["base_loss"] = _rounded(before.mean())
        if not (config.words or config.attribution or config.attention):
            continue
        asked, scores, received = asked_tokens(model.base.tokenizer, row, one.texts), None, None
        if config.attribution and isinstance(decoder, CausalLM):
            found = attribution(decoder, model.adapter, row, asked, blank, config.attribution, device)
            scores, written["lowered"] = found.scores, round(found.lowered, 6)
        if config.attention and isinstance(decoder, CausalLM):
            received = attention_received(decoder, model.adapter, row, device)
        written["words"] = _words(model, row, asked, losses, before, scores, received)


def _words(
    model: SavedModel, row: TokenRow, asked: Tensor, own: Tensor, base: Tensor | None, scores: Tensor | None,
    received: Tensor | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the words of a row: each with its loss summed over its tokens where it is trained on, else its score."""
    trained = torch.zeros(len(row.ids), dtype=torch.int64)
    trained[1:] = (row.weights[1:] != 0).cumsum(0)
    done = []
    for word in words_of(model.base.tokenizer, row, asked):
        one: dict[str, Any] = {"text": word.text, "kind": word.kind}
        if word.kind == "answer":
            part = slice(int(trained[word.begin]) - 1, int(trained[word.end - 1]))
            one["loss"] = _rounded(own[part].sum())
            if base is not None:
                one["base_loss"] = _rounded(base[part].sum())
        elif word.kind == "asked" and scores is not None:
            one["lowers"] = _rounded(scores[word.begin : word.end].sum())
        if received is not None:
            one["attention"] = _rounded(received[word.begin : word.end].sum())
        done.append(one)
    return done


def _rounded(number: Tensor) -> float:
    return round(number.item(), 6)  # on the CPU


def _tell(model: SavedModel, rows: Sequence[_Measured], read: int) -> None:
    """Print a summary as a line of JSON."""
    tokens = sum(one.written["tokens"] for one in rows)
    total = sum(one.written["loss"] * one.written["tokens"] for one in rows)
    own = model.base.tokenizer.chat_template
    told: dict[str, Any] = {"rows": len(rows), "left_out": read - len(rows), "tokens": tokens}
    if tokens:
        told |= {"loss": round(total / tokens, 6), "perplexity": round(perplexity_of(total / tokens), 3)}
    told["template"] = "the model's own" if own == model.renderer.template else "another" if own else "a plain one"
    sys.stdout.write(json.dumps(told) + "\n")
