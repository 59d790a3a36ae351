"""Fine-tunes a language model on conversations or text: `python train.py LanguageModel train_data=chats.jsonl`."""

import dataclasses
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime

import torch
from beautilog import logger
from torch import nn
from torch.optim import AdamW

from config import ConfigError, ConfigParser
from config.language_model_trainer_config import LanguageModelTrainerConfig
from constants.counting import counted
from data.batches import to_device
from data.chat_renderer import Renderer
from data.chat_template import PRESENT, parse_options
from data.conversations import open_source, parse_columns
from data.data_error import DataError
from data.text_preview import preview
from data.token_batches import TokenBatch, TokenBatches
from data.token_row import TokenRow
from data.token_rows import RowAccount, split_rows, token_rows
from llm.adapter_files import load_adapter
from llm.base_model import BaseModel, load
from llm.loss_pass import first_not_finite
from llm.model_export import export_adapter, export_model
from llm.sampling import Sampler
from llm.sampling_settings import SampleRequest, SamplingSettings
from model.adapted_causal_lm import AdaptedCausalLM, OutsideOfState, logprobs_where
from model.causal_lm import CausalLM
from model.lora import LoraAdapter, LoraBank, LoraSettings
from model.token_losses import cross_entropy
from storage.errors import ResumeError
from storage.files import write_json
from storage.text_samples import SAMPLES, TextSample
from train.base_trainer import BaseTrainer
from train.machine import peak_memory
from train.schedulers import warmup_cosine


class LanguageModelTrainer(BaseTrainer):
    """Fine-tunes a language model: an adapter over its frozen weights, or all of them.

    A checkpoint holds what is trained; of a frozen model it has the digest.
    """

    config: LanguageModelTrainerConfig

    def __init__(self) -> None:
        config = self.config = ConfigParser.get(LanguageModelTrainerConfig)
        base = load(config.base_model, self.device, self._base_dtype())
        renderer = self._renderer(base)
        base = dataclasses.replace(base, template=renderer.template, end_ids=renderer.end_ids)
        self._base = OutsideOfState((base, renderer))
        self.accounts: dict[str, RowAccount] = {}
        train_rows, val_rows = self._rows(base, renderer)
        self.model = self._build_model(base)
        pin = self.device.type == "cuda"
        self.train_loader = TokenBatches(train_rows, config.batch_size, shuffle=True, seed=config.seed, pin=pin)
        self.val_loader = TokenBatches(val_rows, config.batch_size, pin=pin)
        self.optimizer = AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            betas=(config.adam_betas[0], config.adam_betas[1]),
            weight_decay=config.weight_decay,
        )
        steps = -(-len(self.train_loader) // config.accumulation_steps) * config.epochs
        warmup = min(round(config.warmup_share * steps), steps - 1)
        self.scheduler = warmup_cosine(self.optimizer, warmup, steps, config.final_rate_share)
        self.init_progress_bar(total=len(self.train_loader) * config.epochs, desc="Training the language model")
        self._clock = OutsideOfState(_Clock())
        super().__init__()
        for line in self._told(base):
            logger.info(line)

    # ---------------------------------------------------------------------------------------------------- the loss

    def compute_loss(self, batch: TokenBatch) -> torch.Tensor:
        """Return the mean negative log-likelihood of the tokens that are trained on, by their weights."""
        if self.model.training and self.run_context.in_session:
            self._clock.held.note(len(batch.tokens))
        batch = to_device(batch, self.device)
        # A frozen model computes in its own dtype, and adapters in fp32: nothing is left to be cast.
        frozen = isinstance(self.model, AdaptedCausalLM)
        with torch.autocast(self.device.type, enabled=False) if frozen else nullcontext():
            logprobs = self._logprobs(batch)
        self._set_loss_count(torch.tensor(batch.total_weight))
        return cross_entropy(logprobs, batch.weights) / batch.total_weight

    def validate(self) -> float:
        """Return the validation loss; its perplexity enters the history too."""
        self._clock.held.pause()
        val_loss = super().validate()
        self.record.note({"val_perplexity": math.exp(min(val_loss, 700.0))})
        return val_loss

    def _logprobs(self, batch: TokenBatch) -> torch.Tensor:
        if isinstance(self.model, AdaptedCausalLM):
            return self.model(batch.tokens, batch.rows, batch.targets, batch.places)
        return logprobs_where(self.model, batch.tokens, batch.rows, batch.targets, batch.places)  # type: ignore[arg-type]

    def preview(self, count: int, colour: bool) -> list[str]:
        """Show the first training rows as they are trained on.

        Args:
            count: number of rows.
            colour: mark what is trained on by colour; else by [brackets].
        """
        _, renderer = self._base.held
        loader = self.train_loader
        assert isinstance(loader, TokenBatches)
        rows = [loader.token_row(number) for number in range(min(count, len(loader.dataset)))]
        return preview(rows, self.accounts["train"], renderer, count, colour)

    # ---------------------------------------------------------------------------------------------------- the state

    def get_extra_state(self) -> dict[str, object]:
        """Return which base model the weights belong to, and how its prompts are made."""
        base, renderer = self._base.held
        return {
            "base_model": base.source,
            "base_digest": base.digest,
            "template": base.template,
            "end_ids": list(base.end_ids),
            "template_date": renderer.now.date().isoformat() if renderer.uses_clock else "",
        }

    def set_extra_state(self, state: dict[str, object]) -> None:
        """Refuse another base model than the run's, or another template.

        Raises:
            ResumeError: it is another.
        """
        base, renderer = self._base.held
        if state["base_digest"] != base.digest:
            raise ResumeError(
                f"the run's base model was {state['base_model']} (digest {str(state['base_digest'])[:12]}); "
                f"{base.source} has the digest {base.digest[:12]}: it is another, or its weights have changed since. "
                "Give the model that the run began with."
            )
        if state["template"] != base.template or state["end_ids"] != list(base.end_ids):
            raise ResumeError("the chat template, or the ids that end an answer, have changed since the run began.")
        if renderer.uses_clock and state["template_date"] != renderer.now.date().isoformat():
            raise ResumeError(
                f"the chat template writes the date, and the run began on {state['template_date']}: go on with "
                f"template_date={state['template_date']}"
            )

    # ---------------------------------------------------------------------------------------------------- the end

    def after_training(self) -> None:
        """Write the adapter as PEFT does, and a whole model where it is asked for or is what was trained."""
        base, _ = self._base.held
        clock = self._clock.held
        self.results |= {f"{split}_data": account.state() for split, account in self.accounts.items()}
        if self.record.progress.best_value is not None and self.config.monitor == "val_loss":
            self.results["perplexity"] = math.exp(min(self.record.progress.best_value, 700.0))
        self.results["tokens_per_second"] = clock.rate()
        self.results["peak_memory_bytes"] = peak_memory(self.device)
        facts = self._facts(base)
        if isinstance(self.model, AdaptedCausalLM):
            export_adapter(self.get_run_file_path("adapter"), base, self.model.adapter, facts)
            if self.config.merge:
                done = export_model(self.get_run_file_path("merged"), base, self.model.adapter, facts)
                logger.info(f"merged: the largest change of a logit is {done.largest_logit_change:.2g}")
        else:
            export_model(self.get_run_file_path("model"), base, None, facts)
        self._write_samples(base)

    def _write_samples(self, base: BaseModel) -> None:
        """Answer some prompts of the validation data, into samples.json."""
        config, loader = self.config, self.val_loader
        assert isinstance(loader, TokenBatches)
        rows = [loader.token_row(number) for number in range(min(config.sample_count, len(loader.dataset)))]
        if not rows:
            return
        self.model.eval()
        bank = None
        if isinstance(self.model, AdaptedCausalLM):
            bank = LoraBank(base.model, self.device)
            bank.add("trained", self.model.adapter)
        settings = SamplingSettings(
            temperature=config.sample_temperature, seed=config.seed, max_tokens=config.sample_tokens
        )
        cuts = [int(row.weights.nonzero()[0]) for row in rows]
        asked = [
            SampleRequest(row.ids[:cut].tolist(), settings, adapter=name)
            for name in ([None] if bank is None else ["trained", None])
            for row, cut in zip(rows, cuts, strict=True)
        ]
        found = [sample for (sample,) in Sampler(base, bank, pack=bank is not None).sample(asked)]
        before = [sample.text for sample in found[len(rows) :]] or [""] * len(rows)
        decode = base.tokenizer.decode
        samples = [
            TextSample(
                place=row.place,
                prompt=decode(row.ids[:cut].tolist()),
                before=old,
                answer=new.text,
                expected=decode(row.targets()[0], skip_special_tokens=True),
                finish=str(new.finish),
                tokens=len(new.tokens),
            )
            for row, cut, new, old in zip(rows, cuts, found, before, strict=False)
        ]
        for sample in samples:
            asked_for = shorten(sample.prompt, end=True)
            old = f", before training {shorten(sample.before)!r}" if sample.before else ""
            logger.info(f"{asked_for!r} is answered {shorten(sample.answer)!r}{old}")
        write_json(self.get_run_file_path(SAMPLES), [dataclasses.asdict(sample) for sample in samples])

    def _facts(self, base: BaseModel) -> dict[str, str]:
        config = self.config
        facts = {name: f"{account.source}; {account.used:,} rows" for name, account in self.accounts.items()}
        chosen = ("trained", "lora_rank", "lora_alpha", "lora_targets", "epochs", "batch_size", "learning_rate", "seed")
        facts |= {name: str(getattr(config, name)) for name in chosen}
        facts["run"] = self.run_folder.id
        return facts | {name: f"{value:.4g}" for name, value in self.results.items() if isinstance(value, float)}

    # ---------------------------------------------------------------------------------------------------- its parts

    def _base_dtype(self) -> torch.dtype:
        config = self.config
        if config.precision == "fp16":
            raise ConfigError(["precision = fp16 is not for language models here; bf16 and fp32 are"])
        if config.trained == "all" and config.adapter is not None:
            raise ConfigError(["adapter is for trained = lora; with trained = all there is none to go on with"])
        if config.trained == "all" and config.merge:
            raise ConfigError(["merge = on is for trained = lora; trained = all writes a whole model in any case"])
        return torch.bfloat16 if config.precision == "bf16" and config.trained == "lora" else torch.float32

    def _renderer(self, base: BaseModel) -> Renderer:
        template = base.template
        if self.config.template is not None:
            try:
                template = self.config.template.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"template = {self.config.template} can't be read: {error}") from error
        try:
            now = datetime.fromisoformat(self.config.template_date) if self.config.template_date else PRESENT
        except ValueError as error:
            raise ConfigError(
                [f"template_date = {self.config.template_date}: must be a date such as 2026-03-31"]
            ) from error
        options = parse_options(self.config.template_options)
        return Renderer(base.tokenizer, template, base.end_ids, self.config.train_on, options, now)

    def _rows(self, base: BaseModel, renderer: Renderer) -> tuple[list[TokenRow], list[TokenRow]]:
        config = self.config
        if config.max_length > base.context:
            raise ConfigError(
                [f"max_length = {config.max_length}: the context of {base.source} is {base.context} tokens"]
            )
        longest, columns = config.max_length or base.context, parse_columns(config.data_columns)
        found = []
        for split, path in (("train", config.train_data), ("val", config.val_data)):
            if path is not None:
                source = open_source(path, config.data_format, columns)
                rows, self.accounts[split] = token_rows(source, renderer, longest, config.on_bad_row)
                found.append(rows)
        if len(found) == 2:
            return found[0], found[1]
        try:
            return split_rows(found[0], config.val_share, config.seed)
        except DataError as error:
            count = counted(len(found[0]), "row")
            raise DataError(
                f"{config.train_data}: {count} can be used, of one place or all the same: none is left to validate "
                "with. Give other rows too, or val_data."
            ) from error

    def _build_model(self, base: BaseModel) -> nn.Module:
        config = self.config
        if config.recompute_activations and not isinstance(base.model, CausalLM):
            raise ConfigError([f"recompute_activations = on is not for {base.source}, which transformers computes"])
        named = dict(base.model.named_parameters())
        damaged = first_not_finite(list(named), list(named.values()))
        if damaged is not None:
            raise DataError(
                f"base_model = {config.base_model}: {damaged} has numbers that are not finite: get it again"
            )
        if config.trained == "all":
            return base.model.requires_grad_(True)
        return AdaptedCausalLM(base.model, self._adapter(base))

    def _adapter(self, base: BaseModel) -> LoraAdapter:
        config = self.config
        if config.adapter is not None:
            return load_adapter(config.adapter, base.model, self.device).requires_grad_(True)
        settings = LoraSettings(
            config.lora_rank, config.lora_alpha, config.lora_targets, config.lora_rslora, config.seed
        )
        try:
            return LoraBank(base.model, self.device).create("trained", settings)
        except ValueError as error:
            raise ConfigError([f"lora_targets: {error}"]) from error

    def _told(self, base: BaseModel) -> Sequence[str]:
        licence = f", licence {base.licence}" if base.licence else ""
        size = sum(parameter.numel() for parameter in base.model.parameters())
        frozen = ", frozen" if self.config.trained == "lora" else ""
        what = f"{size:,} parameters{frozen}, context {counted(base.context, 'token')}{licence}"
        lines = [f"base model {base.source}: {what}"]
        for account in self.accounts.values():
            lines += account.lines()
        return lines


class _Clock:
    """Tokens and seconds of the training steps of this process, without what lies between epochs."""

    def __init__(self) -> None:
        self._tokens, self._seconds = 0, 0.0
        self._last: tuple[float, int] | None = None

    def note(self, tokens: int) -> None:
        """Note that a batch of so many tokens begins."""
        now = time.perf_counter()
        if self._last is not None:
            self._seconds += now - self._last[0]
            self._tokens += self._last[1]
        self._last = (now, tokens)

    def pause(self) -> None:
        """Leave out the time until the next batch."""
        self._last = None

    def rate(self) -> float | None:
        """Return tokens a second; None where nothing was measured."""
        return self._tokens / self._seconds if self._seconds else None


def shorten(text: str, most: int = 160, end: bool = False) -> str:
    """Return text for a line of the log.

    Args:
        text: the text.
        most: characters that are shown.
        end: whether its end is shown, not its beginning, where it is longer.
    """
    if len(text) <= most:
        return text
    return f"...{text[-most:]}" if end else f"{text[:most]}..."
