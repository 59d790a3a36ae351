"""Fine-tunes a language model on conversations or text: `python train.py LanguageModel train_data=chats.jsonl`."""

import torch
from beautilog import logger

from config import ConfigParser
from config.language_model_trainer_config import LanguageModelTrainerConfig
from constants.counting import counted
from data.conversations import open_source, parse_columns
from data.data_error import DataError
from data.text_preview import preview
from data.token_batches import TokenBatch, TokenBatches
from data.token_row import TokenRow
from data.token_rows import RowAccount, split_rows, token_rows
from evaluation.text_metrics import perplexity_of
from llm.model_card import data_fact, told_figures
from model.token_losses import cross_entropy
from train.base_trainer import BaseTrainer
from train.language.optimization import adamw, warmup_then_cosine
from train.language.samples import answer_rows, write_samples
from train.language.token_clock import TokenClock
from train.language.trained_model import TrainedModel
from train.machine import peak_memory


class LanguageModelTrainer(BaseTrainer):
    """Fine-tunes a language model: an adapter over its frozen weights, or all of them.

    A checkpoint holds what is trained; of a frozen model it has the digest.
    """

    config: LanguageModelTrainerConfig
    train_loader: TokenBatches
    val_loader: TokenBatches

    def __init__(self) -> None:
        config = self.config = ConfigParser.get(LanguageModelTrainerConfig)
        self.language = TrainedModel(config, self.device, config.train_on, lenient=True)  # rows may need no template
        self.accounts: dict[str, RowAccount] = {}
        train_rows, val_rows = self._rows()
        self.model = self.language.module
        pin = self.device.type == "cuda"
        self.train_loader = TokenBatches(train_rows, config.batch_size, shuffle=True, seed=config.seed, pin=pin)
        self.val_loader = TokenBatches(val_rows, config.batch_size, pin=pin)
        self.optimizer = adamw(config, self.model)
        self.scheduler = warmup_then_cosine(config, self.optimizer, len(self.train_loader))
        self.init_progress_bar(total=len(self.train_loader) * config.epochs, desc="Training the language model")
        self.clock = TokenClock()
        super().__init__()
        self.language.write_record(self.run_folder.path)
        accounts = [] if self.options.preview else [*self.accounts.values()]  # which says it where its rows are
        for line in [*self.language.lines(), *(line for account in accounts for line in account.lines())]:
            logger.info(line)

    def compute_loss(self, batch: TokenBatch) -> torch.Tensor:
        """Return the mean negative log-likelihood of the tokens that are trained on, by their weights."""
        if self.model.training and self.run_context.in_session:
            self.clock.note(len(batch.tokens))
        logprobs = self.language.logprobs(batch, self.model)
        self._set_loss_count(torch.tensor(batch.total_weight))
        return cross_entropy(logprobs, batch.weights.to(self.device)) / batch.total_weight

    def validate(self) -> float:
        """Return the validation loss; its perplexity enters the history too."""
        self.clock.pause()
        val_loss = super().validate()
        self.record.note({"val_perplexity": perplexity_of(val_loss)})
        return val_loss

    def preview(self, count: int, colour: bool) -> list[str]:
        """Show the first training rows as they are trained on.

        Args:
            count: number of rows.
            colour: mark what is trained on by colour; else by [brackets].
        """
        rows = self.train_loader.first_rows(count)
        return preview(rows, [*self.accounts.values()], self.language.renderer, count, colour)

    def get_extra_state(self) -> dict[str, object]:
        """Return which base model the weights belong to, and how its prompts are made."""
        return self.language.state()

    def set_extra_state(self, state: dict[str, object]) -> None:
        """Refuse another base model than the run's, or another template.

        Raises:
            ResumeError: it is another.
        """
        self.language.require(state)

    def after_training(self) -> None:
        """Write the adapter as PEFT does, and a whole model where it is asked for or is what was trained."""
        self.results |= {f"{split}_data": account.state() for split, account in self.accounts.items()}
        if self.record.progress.best_value is not None and self.config.monitor == "val_loss":
            self.results["perplexity"] = perplexity_of(self.record.progress.best_value)
        self.results["tokens_per_second"] = self.clock.rate()
        self.results["peak_memory_bytes"] = peak_memory(self.device)
        facts = {name: data_fact(account.state()) for name, account in self.accounts.items()}
        facts["run"] = self.run_folder.id
        facts |= told_figures(self.results)
        self.language.export(self.get_run_file_path, facts)
        rows = self.val_loader.first_rows(self.config.sample_count)
        write_samples(self.language, self.get_run_file_path, answer_rows(self.language, rows))

    def _rows(self) -> tuple[list[TokenRow], list[TokenRow]]:
        config = self.config
        longest, columns = self.language.longest_row(config.max_length), parse_columns(config.data_columns)
        found = []
        for split, path in (("train", config.train_data), ("val", config.val_data)):
            if path is not None:
                source = open_source(path, config.data_format, columns)
                rows, self.accounts[split] = token_rows(source, self.language.renderer, longest, config.on_bad_row)
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
