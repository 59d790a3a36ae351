"""The language model of a run: its base, how conversations become its tokens, and the module that is trained."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import cast

import torch
from beautilog import logger
from torch import Tensor, nn

from config import ConfigError
from config.language_config import LanguageConfig
from constants.counting import counted
from data.batches import to_device
from data.chat_renderer import Renderer
from data.chat_template import PRESENT, parse_options
from data.data_error import DataError
from data.token_batches import TokenBatch
from llm.adapter_files import base_of, load_adapter
from llm.base_model import BaseModel, load
from llm.loss_pass import first_not_finite
from llm.model_card import TOLD_SETTINGS
from llm.model_export import export_adapter, export_model, require_mergeable
from llm.model_record import RECORD, ModelRecord, read_record
from llm.sampling import Sampler, sampler_of
from llm.sampling_settings import SampleRequest
from llm.shown_digest import shown_digest
from model.adapted_causal_lm import AdaptedCausalLM, LanguageModel, logprobs_where
from model.causal_lm import CausalLM
from model.lora import LoraAdapter, LoraBank, LoraSettings
from storage.errors import ResumeError
from train.language.output_advice import weights_are_safe

_OF_STATE = ("base_model", "base_digest", "template", "template_date")  # what a checkpoint has of a `ModelRecord`
TRAINED = "trained"  # name of the adapter that is trained, in a sampler's bank


class TrainedModel:
    """A language model under training: an adapter over its frozen weights, or all of them.

    Its attributes lie in slots, which nobody looks into who gathers what a checkpoint must hold: the weights that are
    trained are the trainer's `model`, the others are known by their digest.

    Args:
        config: settings of the run.
        device: where the model computes.
        train_on: which tokens of a conversation are trained on, `answers` or `all`.
        lenient: whether a chat template that can't be used is an error only when a conversation comes.

    Attributes:
        base: the model with its tokenizer, template and the ids that end an answer.
        renderer: the one way from conversations to tokens.
        module: what is trained; its parameters and state dict are those of the adapter, or of the whole model.

    Raises:
        ConfigError: settings that don't go together.
        DataError: a template can't be read, or the base model's weights are damaged.
        ModelError: the base model or the adapter can't be loaded.
    """

    __slots__ = ("base", "config", "device", "module", "renderer")

    def __init__(
        self, config: LanguageConfig, device: torch.device, train_on: str = "answers", lenient: bool = False
    ) -> None:
        self.config, self.device = config, device
        base = load(config.base_model, device, _base_dtype(config))
        self.renderer = _renderer(config, base, train_on, lenient)
        self.base: BaseModel = dataclasses.replace(base, template=self.renderer.template, end_ids=self.renderer.end_ids)
        self.module: nn.Module = _module(config, self.base, device)

    @property
    def adapter(self) -> LoraAdapter | None:
        """The adapter that is trained; None where all weights are."""
        return self.module.adapter if isinstance(self.module, AdaptedCausalLM) else None

    def lines(self) -> list[str]:
        """Say which model it is, for the log."""
        base = self.base
        licence = f", licence {base.licence}" if base.licence else ""
        size = sum(parameter.numel() for parameter in base.model.parameters())
        frozen = ", frozen" if self.adapter is not None else ""
        what = f"{size:,} parameters{frozen}, context {counted(base.context, 'token')}{licence}"
        lines = [f"base model {base.source}: {what}"]
        if not base.tokenizer.chat_template and self.config.template is None:
            lines.append("the tokenizer has no chat template: a common one is used; `template` gives another")
        if self.adapter is not None and self.config.adapter is not None:  # its settings aren't those of the config
            lines.append(f"adapter {self.config.adapter}: {_told(self.adapter)}")
        return lines

    def longest_row(self, max_length: int) -> int:
        """Return the most tokens that a row of the data may have.

        Args:
            max_length: the setting; 0 takes the model's context.

        Raises:
            ConfigError: it is more than the model's context.
        """
        base = self.base
        if max_length > base.context:
            raise ConfigError([f"max_length = {max_length}: the context of {base.source} is {base.context} tokens"])
        return max_length or base.context

    # ------------------------------------------------------------------------------------------------ forward passes

    def logprobs(self, batch: TokenBatch, module: nn.Module | None = None) -> Tensor:
        """Return the log-probabilities of a batch's targets.

        Args:
            batch: rows of tokens, anywhere; they are copied to the model's device.
            module: the module to use, such as a trainer's `model` with what surrounds it in several processes; None for
                the trained one.

        Returns:
            (N,) float32, or (N, K) where each place has K targets.
        """
        module = self.module if module is None else module
        batch = to_device(batch, self.device)
        if self.adapter is not None:
            # A frozen model computes in its own dtype, and adapters in fp32: nothing is left to be cast.
            with torch.autocast(self.device.type, enabled=False):
                return module(batch.tokens, batch.rows, batch.targets, batch.places)
        return logprobs_where(cast(LanguageModel, module), batch.tokens, batch.rows, batch.targets, batch.places)

    # ------------------------------------------------------------------------------------------------------ sampling

    def sampler(self) -> Sampler:
        """Return a sampler of the model as it is at present; requests of the adapter name it `TRAINED`.

        Weights that are trained as a whole are not packed for it: they will change.
        """
        return sampler_of(self.base, self.adapter, TRAINED, pack=self.adapter is not None)

    @property
    def sampled(self) -> str | None:
        """What a request to `sampler` names as its adapter, to be answered by the model under training."""
        return None if self.adapter is None else TRAINED

    def answers(self, requests: Sequence[SampleRequest]) -> list[list[str]]:
        """Return the texts of answers, each request's samples in a list.

        Args:
            requests: what is asked.
        """
        self.module.eval()
        return [[sample.text for sample in samples] for samples in self.sampler().sample(requests)]

    # ----------------------------------------------------------------------------------------------------- the state

    def state(self) -> dict[str, object]:
        """Return which base model the weights belong to, and how its prompts are made."""
        record = self.record()
        return {name: getattr(record, name) for name in _OF_STATE} | {"end_ids": list(record.end_ids)}

    def require(self, state: Mapping[str, object]) -> None:
        """Refuse another base model than a run's, or another template.

        Args:
            state: what `state` returned in the run.

        Raises:
            ResumeError: it is another.
        """
        self._require_base(str(state["base_model"]), str(state["base_digest"]))
        mine = self.state()
        if any(state[name] != mine[name] for name in ("template", "end_ids")):
            raise ResumeError("the chat template, or the ids that end an answer, have changed since the run began.")
        if state["template_date"] != mine["template_date"] and self.renderer.uses_clock:
            raise ResumeError(
                f"the chat template writes the date, and the run began on {state['template_date']}: go on with "
                f"template_date={state['template_date']}"
            )

    def _require_base(self, source: str, digest: str) -> None:
        base = self.base
        if digest != base.digest:
            raise ResumeError(
                f"the run's base model was {source} (digest {shown_digest(digest)}); {base.source} has the digest "
                f"{shown_digest(base.digest)}: it is another, or its weights have changed since. Give the model that "
                "the run began with."
            )

    def record(self) -> ModelRecord:
        """Return what the weights are read with, by whoever has no trainer."""
        return ModelRecord.of(self.base, self.renderer, self.adapter)

    def write_record(self, folder: Path) -> None:
        """Write the record of a run that begins, so that its weights can be read at any time.

        Args:
            folder: the run's folder; one that is gone on with has its record already, and must be of this base model.

        Raises:
            OutputError: it can't be written.
            ResumeError: the run that is gone on with has another base model.
        """
        if not (folder / RECORD).exists():
            self.record().write(folder)
        elif (known := read_record(folder)) is not None:  # before weights are put back, which may have other shapes
            self._require_base(known.base_model, known.base_digest)

    # ------------------------------------------------------------------------------------------------------- the end

    def export(self, path_of: Callable[[str], Path], facts: Mapping[str, str]) -> None:
        """Write the adapter as PEFT does, and a whole model where it is asked for or is what was trained.

        Args:
            path_of: gives the place of a name in the run's folder; `adapter`, `merged` and `model` are used.
            facts: what the model cards tell, such as data, settings and figures.

        Raises:
            OutputError: a file can't be written.
        """
        config = self.config
        facts = dict(facts) | {name: str(getattr(config, name)) for name in TOLD_SETTINGS if hasattr(config, name)}
        if self.adapter is not None:
            facts["adapter"] = _told(self.adapter)
        written: list[str] = []
        with weights_are_safe(path_of, written, config.merge):
            if self.adapter is None:
                export_model(path_of("model"), self.base, None, facts, self.record())
                return
            export_adapter(path_of("adapter"), self.base, self.adapter, facts, self.record())
            written.append("adapter/")
            if config.merge:
                done = export_model(path_of("merged"), self.base, self.adapter, facts, self.record())
                logger.info(f"merged: the largest change of a logit is {done.largest_logit_change:.2g}")


def _told(adapter: LoraAdapter) -> str:
    """Say what an adapter is made of."""
    used = [part for part in adapter.parts() if part.rank]
    ranks, scales = (
        {f"{value:g}" for value in values} for values in zip(*((p.rank, p.scale) for p in used), strict=True)
    )
    targets = ", ".join(dict.fromkeys(part.site.target for part in used))
    return f"rank {' and '.join(sorted(ranks))}, scale {' and '.join(sorted(scales))}, on {targets}"


def _base_dtype(config: LanguageConfig) -> torch.dtype:
    if config.precision == "fp16":
        raise ConfigError(["precision = fp16 is not for language models here; bf16 and fp32 are"])
    if config.trained == "all" and config.adapter is not None:
        raise ConfigError(["adapter is for trained = lora; with trained = all there is none to go on with"])
    if config.trained == "all" and config.merge:
        raise ConfigError(["merge = on is for trained = lora; trained = all writes a whole model in any case"])
    return torch.bfloat16 if config.precision == "bf16" and config.trained == "lora" else torch.float32


def _renderer(config: LanguageConfig, base: BaseModel, train_on: str, lenient: bool) -> Renderer:
    template = base.template
    if config.template is not None:
        try:
            template = config.template.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"template = {config.template} can't be read: {error}") from error
    try:
        now = datetime.fromisoformat(config.template_date) if config.template_date else PRESENT
    except ValueError as error:
        raise ConfigError([f"template_date = {config.template_date}: must be a date such as 2026-03-31"]) from error
    options = parse_options(config.template_options)
    return Renderer(base.tokenizer, template, base.end_ids, train_on, options, now, lenient)


def _module(config: LanguageConfig, base: BaseModel, device: torch.device) -> nn.Module:
    if config.recompute_activations and not isinstance(base.model, CausalLM):
        raise ConfigError([f"recompute_activations = on is not for {base.source}, which transformers computes"])
    named = dict(base.model.named_parameters())
    damaged = first_not_finite(list(named), list(named.values()))
    if damaged is not None:
        raise DataError(f"base_model = {config.base_model}: {damaged} has numbers that are not finite: get it again")
    if config.trained == "all":
        return base.model.requires_grad_(True)
    adapter = _adapter(config, base, device)
    if config.merge:
        require_mergeable(base, adapter)
    return AdaptedCausalLM(base.model, adapter)


def _adapter(config: LanguageConfig, base: BaseModel, device: torch.device) -> LoraAdapter:
    if config.adapter is not None:
        return _adapter_of(config, config.adapter, base, device)
    settings = LoraSettings(config.lora_rank, config.lora_alpha, config.lora_targets, config.lora_rslora, config.seed)
    try:
        adapter = LoraBank(base.model, device).create(TRAINED, settings)
    except ValueError as error:
        raise ConfigError([f"lora_targets: {error}"]) from error
    _require_useful_rank(config, adapter)
    return adapter


def _adapter_of(config: LanguageConfig, folder: Path, base: BaseModel, device: torch.device) -> LoraAdapter:
    """Load an adapter to go on with; what the settings say otherwise of its sizes is told, for it keeps its own."""
    record = read_record(folder)
    if record is not None:
        record.require_base(folder, base)
    adapter = load_adapter(folder, base.model, device).requires_grad_(True)
    used = [part for part in adapter.parts() if part.rank]
    has: dict[str, list[float]] = {
        "lora_rank": sorted({part.rank for part in used}),
        "lora_alpha": sorted({part.alpha for part in used}),
        "lora_rslora": sorted({part.rslora for part in used}),
    }
    wanted: dict[str, float] = {
        "lora_rank": config.lora_rank,
        "lora_alpha": config.lora_alpha,
        "lora_rslora": config.lora_rslora,
    }
    other = [f"{name} is {' and '.join(f'{value:g}' for value in values)}, not {wanted[name]:g}"
             for name, values in has.items() if values != [wanted[name]]]  # fmt: skip
    targets = tuple(dict.fromkeys(part.site.target for part in used))
    if set(targets) != set(config.lora_targets):
        other.append(f"lora_targets is {', '.join(targets)}, not {', '.join(config.lora_targets)}")
    if other:
        logger.warning(f"adapter = {folder} keeps its own sizes, whatever the settings say: {'; '.join(other)}")
    named = base_of(folder)
    if record is None and named and named != base.source:
        logger.warning(f"adapter = {folder} says that it is of {named}; it is trained on over {base.source}")
    return adapter


def _require_useful_rank(config: LanguageConfig, adapter: LoraAdapter) -> None:
    """Say of a rank that is larger than a layer has sides that it brings nothing there.

    Raises:
        ConfigError: it is larger than every layer's.
    """
    sides = {part.site.name: min(part.site.inputs, part.site.outputs) for part in adapter.parts()}
    least, most = min(sides.values()), max(sides.values())
    if config.lora_rank > most:
        raise ConfigError(
            [f"lora_rank = {config.lora_rank}: no layer that the adapter changes can use more than {most}, the shorter "
             "side of its weight; 8 to 64 are usual"]
        )  # fmt: skip
    if config.lora_rank > least:
        small = next(name for name, side in sides.items() if side == least)
        count = sum(side < config.lora_rank for side in sides.values())
        logger.warning(
            f"lora_rank = {config.lora_rank} is more than {counted(count, 'layer')} can use, such as {small}, whose "
            f"weight has a side of {least}: there it brings nothing"
        )
