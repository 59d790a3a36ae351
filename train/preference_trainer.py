"""Trains a language model on pairs of answers, of which one is preferred: `python train.py Preference`."""

import torch
from beautilog import logger
from torch import Tensor

from config import ConfigParser
from config.preference_trainer_config import PreferenceTrainerConfig
from constants.counting import counted
from data.data_error import DataError
from data.loaders import EpochLoader, make_loader
from data.preference_batches import PreferenceBatch, PreferencePairs, pack_pairs
from data.preference_pairs import PreferencePair, preference_pairs, split_pairs
from data.text_preview import preview
from data.token_row import TokenRow
from data.token_rows import RowAccount
from llm.model_card import data_fact, told_figures
from model.preference_loss import preference_loss, sums_of_rows
from train.base_trainer import BaseTrainer
from train.language.optimization import adamw, warmup_then_cosine
from train.language.samples import answer_rows, write_samples
from train.language.token_clock import TokenClock
from train.language.trained_model import TrainedModel
from train.machine import peak_memory


class PreferenceTrainer(BaseTrainer):
    """Makes preferred answers likelier than the others, beside the model as training began (DPO).

    How likely the answers were then is computed once, before the first step, and again where a run is gone on with: the
    model is built before its checkpoint is put back, so it is the same.
    """

    config: PreferenceTrainerConfig
    train_loader: EpochLoader
    val_loader: EpochLoader

    def __init__(self) -> None:
        config = self.config = ConfigParser.get(PreferenceTrainerConfig)
        self.language = TrainedModel(config, self.device, lenient=True)
        self.accounts: dict[str, RowAccount] = {}
        train_pairs, val_pairs = self._pairs()
        self._val_rows = [pair.chosen for pair in val_pairs]
        self.model = self.language.module
        self.clock = TokenClock()
        self.train_loader = self._loader(train_pairs, shuffle=True)
        self.val_loader = self._loader(val_pairs, shuffle=False)
        # Told apart by what validates: `model.training`.
        self._reference = (self._reference_of(val_pairs), self._reference_of(train_pairs))
        self.optimizer = adamw(config, self.model)
        self.scheduler = warmup_then_cosine(config, self.optimizer, len(self.train_loader))
        self.init_progress_bar(total=len(self.train_loader) * config.epochs, desc="Learning preferences")
        super().__init__()
        self.language.write_record(self.run_folder.path)
        accounts = [] if self.options.preview else [*self.accounts.values()]
        for line in [*self.language.lines(), *(line for account in accounts for line in account.lines())]:
            logger.info(line)

    def compute_loss(self, batch: PreferenceBatch) -> Tensor:
        """Return the mean loss over the batch's pairs."""
        config, size = self.config, batch.batch_size
        if self.model.training and self.run_context.in_session:
            self.clock.note(len(batch.rows.tokens))
        counts = batch.counts.to(self.device)
        logprobs = self.language.logprobs(batch.rows, self.model)
        sums = sums_of_rows(logprobs, counts)
        reference = self._reference[self.model.training][batch.numbers.to(self.device)].T.flatten()
        margins = sums - reference
        loss = preference_loss(margins, counts, config.loss, config.beta, config.label_smoothing)
        if config.chosen_weight:
            loss = loss - config.chosen_weight * (sums[:size] / counts[:size]).mean()
        chosen, rejected = margins.detach().chunk(2)
        self._collect_batch_metrics({
            "accuracy": (chosen > rejected).float().mean(), "margin": config.beta * (chosen - rejected).mean(),
            "chosen_margin": config.beta * chosen.mean(),
        })  # fmt: skip
        return loss

    def validate(self) -> float:
        """Return the validation loss."""
        self.clock.pause()
        return super().validate()

    def preview(self, count: int, colour: bool) -> list[str]:
        """Show the first training rows as they are trained on, the better answer before the other.

        Args:
            count: number of rows.
            colour: mark what is trained on by colour; else by [brackets].
        """
        pairs = self.train_loader.dataset.pairs  # type: ignore[attr-defined]  # made in _loader
        rows: list[TokenRow] = [row for pair in pairs[: -(-count // 2)] for row in (pair.chosen, pair.rejected)]
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
        self.results |= {"tokens_per_second": self.clock.rate(), "peak_memory_bytes": peak_memory(self.device)}
        facts = {name: data_fact(account.state()) for name, account in self.accounts.items()}
        facts |= {"run": self.run_folder.id, "loss": self.config.loss, "beta": f"{self.config.beta:g}"}
        facts |= told_figures(self.results)
        self.language.export(self.get_run_file_path, facts)
        rows = self._val_rows[: self.config.sample_count]
        write_samples(self.language, self.get_run_file_path, answer_rows(self.language, rows))

    # ---------------------------------------------------------------------------------------------------- the data

    def _pairs(self) -> tuple[list[PreferencePair], list[PreferencePair]]:
        config, longest = self.config, self.language.longest_row(self.config.max_length)
        found = []
        for split, path in (("train", config.train_data), ("val", config.val_data)):
            if path is not None:
                pairs, self.accounts[split] = preference_pairs(
                    path, self.language.renderer, longest, config.on_bad_row,
                    config.data_columns,
                )  # fmt: skip
                found.append(pairs)
        if len(found) == 2:
            return found[0], found[1]
        try:
            return split_pairs(found[0], config.val_share, config.seed)
        except DataError as error:
            raise DataError(f"{config.train_data}, {counted(len(found[0]), 'pair')}: {error}") from error

    def _loader(self, pairs: list[PreferencePair], shuffle: bool) -> EpochLoader:
        config = self.config
        return make_loader(PreferencePairs(pairs), config.batch_size, shuffle=shuffle, seed=config.seed,
                           device=self.device, collate_fn=pack_pairs)  # fmt: skip

    def _reference_of(self, pairs: list[PreferencePair]) -> Tensor:
        """Return the log-probabilities of all answers by the model as it is: (pairs, 2) float32 on its device."""
        was_training, done = self.model.training, []
        self.model.eval()
        with torch.no_grad():
            for start in range(0, len(pairs), self.config.batch_size):
                numbered = list(enumerate(pairs))[start : start + self.config.batch_size]
                batch = pack_pairs(numbered)
                sums = sums_of_rows(self.language.logprobs(batch.rows), batch.counts.to(self.device))
                done.append(sums.view(2, -1).T)
        self.model.train(was_training)
        return torch.cat(done)
