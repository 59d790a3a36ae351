"""`--losses`: the loss of each row of text under a model, of each word where asked, and what the prompt does to it."""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from commands.chat.request import ModelRequest, open_model
from config import ConfigError, ConfigParser
from config.losses_config import LossesConfig
from data.chat_messages import RowError
from data.conversations import open_source
from data.token_row import TokenRow
from evaluation.text_metrics import perplexity_of
from llm.row_losses import attribution, token_losses, words_of
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
            rows.append((written[-1], made))
    _measure(model, base, rows, config)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written)
    write_atomically(request.out, lines.encode("utf-8", "surrogatepass"), setting="--out")
    _tell(model, rows, len(written))
    return 0


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


def _row_of(example: Any, place: str, model: SavedModel) -> TokenRow | str:
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


def _measure(
    model: SavedModel, base: SavedModel | None, rows: list[tuple[dict[str, Any], TokenRow]], config: LossesConfig
) -> None:
    """Add to each object what its row has come to."""
    device = next(model.base.model.parameters()).device
    only = [row for _, row in rows]
    own = token_losses(model.base.model, model.adapter, only, device)
    of_base = token_losses(base.base.model, None, only, device) if base is not None else None
    space = model.base.tokenizer.encode(" ", add_special_tokens=False)
    if config.attribution and not isinstance(model.base.model, CausalLM):
        raise ConfigError([f"attribution is not for {model.base.source}, which transformers computes"])
    for number, (written, row) in enumerate(rows):
        written |= {"loss": _rounded(own[number].mean()), "tokens": len(own[number]), "length": len(row.ids)}
        if of_base is not None:
            written["base_loss"] = _rounded(of_base[number].mean())
        scores = None
        if config.attribution and isinstance(model.base.model, CausalLM):
            found = attribution(model.base.model, model.adapter, row, space[-1], config.attribution, device)
            scores, written["lowered"] = found.scores, _rounded(torch.tensor(found.lowered))
        if config.words or scores is not None:
            each = None if of_base is None else of_base[number]
            written["words"] = _words(model, row, own[number], each, scores)


def _words(
    model: SavedModel, row: TokenRow, own: torch.Tensor, base: torch.Tensor | None, scores: torch.Tensor | None
) -> list[dict[str, Any]]:
    """Return the words of a row: each with its loss summed over its tokens where it is trained on, else its score."""
    trained = torch.zeros(len(row.ids), dtype=torch.int64)
    trained[1:] = (row.weights[1:] != 0).cumsum(0)
    done = []
    for word in words_of(model.base.tokenizer, row):
        one: dict[str, Any] = {"text": word.text, "trained": word.trained}
        if word.trained:
            part = slice(int(trained[word.begin]) - 1, int(trained[word.end - 1]))
            one["loss"] = _rounded(own[part].sum())
            if base is not None:
                one["base_loss"] = _rounded(base[part].sum())
        elif scores is not None:
            one["lowers"] = _rounded(scores[word.begin : word.end].sum())
        done.append(one)
    return done


def _rounded(number: torch.Tensor) -> float:
    return round(float(number), 6)


def _tell(model: SavedModel, rows: list[tuple[dict[str, Any], TokenRow]], read: int) -> None:
    """Print a summary as a line of JSON."""
    tokens = sum(written["tokens"] for written, _ in rows)
    total = sum(written["loss"] * written["tokens"] for written, _ in rows)
    own = model.base.tokenizer.chat_template
    told: dict[str, Any] = {"rows": len(rows), "left_out": read - len(rows), "tokens": tokens}
    if tokens:
        told |= {"loss": round(total / tokens, 6), "perplexity": round(perplexity_of(total / tokens), 3)}
    told["template"] = "the model's own" if own == model.renderer.template else "another" if own else "a plain one"
    sys.stdout.write(json.dumps(told) + "\n")
