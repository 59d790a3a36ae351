"""Learns to rank a zoo's models for a dataset: `python train.py SimilarityTransformerTrainer`."""

import dataclasses
from typing import Any

import numpy as np
import torch
from beautilog import logger
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.optim import AdamW

from config import ConfigError, ConfigParser
from config.similarity_transformer_trainer_config import SimilarityTransformerTrainerConfig
from constants import command
from data.data_error import DataError
from data.image_encoder import load_encoder
from data.ranking_world import RankingWorld, load_world, make_fold
from data.similarity_lists import FEATURES_VERSION, ListMaker, SimilarityLists, build_combined_similarity_loader
from evaluation.ranking.comparison import RANKERS, Job, compare, table_lines
from evaluation.ranking.ranking_metrics import ranking_metrics
from evaluation.ranking.saved_ranker import table_digest, zoo_digest
from model.ranking_losses import RANKING_LOSSES
from model.similarity_transformer import SimilarityEnsemble, TransformerShape
from train.base_trainer import BaseTrainer
from train.schedulers import warmup_cosine

EVIDENCE_RATE = 10.0  # learning rate of the weights of pair features, in multiples of learning_rate


class SimilarityTransformerTrainer(BaseTrainer):
    """Learns to rank the models of a zoo for a dataset, from measured fine-tuning results."""

    config: SimilarityTransformerTrainerConfig
    model: SimilarityEnsemble
    train_loader: SimilarityLists

    def __init__(self) -> None:
        self.config = ConfigParser.get(SimilarityTransformerTrainerConfig)
        if self.config.width % self.config.heads:
            raise ConfigError([f"width = {self.config.width} must be a multiple of heads = {self.config.heads}."])
        self.world = load_world(load_encoder(self.config.encoder), self.config.zoo, self.config.performance)
        self.fold = make_fold(self.world, self.config.split, self.config.fold, self.config.validation_part)
        self.maker = ListMaker(
            self.world, self.fold, self.config.hybrid, codes=self._codes(self.world),
            shuffle_truth=self.config.shuffle_truth, seed=self.config.seed,
        )  # fmt: skip
        options = {"batch_size": self.config.batch_size, "seed": self.config.seed}
        self.train_loader = build_combined_similarity_loader(
            ("train",), self.maker, variants=self.config.variants, per_epoch=self.config.lists_per_task, **options
        )
        self.val_loader = build_combined_similarity_loader(("val",), self.maker, **options)
        first = self.train_loader.dataset[0]
        self.shape = TransformerShape(
            dataset_dim=first["dataset_tokens"].shape[1], model_dim=first["model_tokens"].shape[1],
            pair_dim=first["pair_features"].shape[1], width=self.config.width, layers=self.config.layers,
            heads=self.config.heads, dropout=self.config.dropout,
        )  # fmt: skip
        self.model = SimilarityEnsemble(self.shape, self.config.members)
        self.loss_fn = RANKING_LOSSES[self.config.loss]
        evidence = self.model.evidence_weights()
        others = [weight for weight in self.model.parameters() if all(weight is not own for own in evidence)]
        groups: list[dict[str, Any]] = [
            {"params": others},
            # The few linear weights carry most of the ranking: they begin at 0 and have to get there first.
            {"params": evidence, "lr": EVIDENCE_RATE * self.config.learning_rate, "weight_decay": 0.0},
        ]
        self.optimizer = AdamW(groups, lr=self.config.learning_rate, weight_decay=self.config.weight_decay)
        steps = -(-len(self.train_loader) // self.config.accumulation_steps) * self.config.epochs
        self.scheduler = warmup_cosine(self.optimizer, warmup_steps=steps // 10, total_steps=steps)
        self.init_progress_bar(total=len(self.train_loader) * self.config.epochs, desc="Training the ranker")
        super().__init__()

    def _forward_batch(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the ranking loss: in training of each member, in validation of their mean score.

        Args:
            batch: batch of lists, as `build_combined_similarity_loader` gives it.
        """
        scores = self._scores(batch)  # (K, B, N)
        truth, mask = batch["truth"].to(self.device), batch["model_mask"].to(self.device)
        if self.model.training:
            return torch.stack([self.loss_fn(own, truth, mask) for own in scores]).mean()
        self._collect_batch_metrics(mean_metrics(scores.mean(0), batch))
        return self.loss_fn(scores.mean(0), truth, mask)

    def after_training(self) -> None:
        """Rank the models for the test tasks with the best weights, and say how good that is beside the baselines.

        Writes the scores to rankings.json and the comparison to comparison.json.
        """
        self._describe()
        if not self.fold.test_tasks:
            logger.info(f"split = {self.config.split} leaves no task for a test")
            return
        self.model.eval()
        lists = build_combined_similarity_loader(("test",), self.maker, batch_size=self.config.batch_size)
        rankings, metrics = {}, []
        for batch in lists:
            with torch.no_grad():
                scores = self._scores(batch).mean(0).cpu().numpy()  # synchronisation
            for name, own, accuracy in zip(batch["dataset_names"], scores, batch["accuracy"].numpy(), strict=True):
                rankings[name] = {"scores": own.round(5).tolist(), "accuracy": accuracy.round(5).tolist()}
                metrics.append(ranking_metrics(own.astype(np.float64), accuracy.astype(np.float64)))
        head = {"split": self.config.split, "fold": self.config.fold, "hybrid": self.config.hybrid}
        self.run_folder.write_json("rankings.json", head | {"models": batch["model_names"], "tasks": rankings})
        self.results |= {f"test_{key}": round(float(np.mean([m[key] for m in metrics])), 4) for key in metrics[0]}
        self.results |= head | {"pair_features": self.maker.pair_names}
        ranker = next(name for name, hybrid in RANKERS.items() if hybrid == ("on" if self.config.hybrid else "off"))
        comparison = compare(self.world, {Job(self.config.split, self.config.fold, ranker): {"tasks": rankings}})
        self.run_folder.write_json("comparison.json", comparison)
        logger.info("test, beside baselines:")
        for line in filter(None, table_lines(comparison)):
            logger.info(line)

    def _describe(self) -> None:
        """Write ranker.json: what `recommend.py` needs to use the weights."""
        content = {
            "schema_version": 1, "split": self.config.split, "fold": self.config.fold, "hybrid": self.config.hybrid,
            "encoder": self.config.encoder, "codes": None if self.config.codes is None else str(self.config.codes),
            "zoo": str(self.config.zoo), "performance": str(self.config.performance),
            "table_digest": table_digest(self.config.performance), "zoo_digest": zoo_digest(self.config.zoo),
            "features_version": FEATURES_VERSION,
            "members": self.config.members, "shape": dataclasses.asdict(self.shape),
        }  # fmt: skip
        self.run_folder.write_json("ranker.json", content)

    def _scores(self, batch: dict[str, Any]) -> torch.Tensor:
        names = ("dataset_tokens", "model_tokens", "pair_features", "dataset_mask", "model_mask")
        return self.model(*(batch[name].to(self.device) for name in names))

    def _codes(self, world: RankingWorld) -> torch.Tensor | None:
        """Read the autoencoder codes of the finished networks, in the world's order: (N, W)."""
        path = self.config.codes
        if path is None:
            return None
        try:
            tokens = load_file(path)
            return torch.stack([tokens[name][-1] for name in world.models])
        except (OSError, SafetensorError, RuntimeError) as error:
            raise DataError(
                f"codes = {path} can't be read: {error}. `{command('train')} ModelAutoEncoderTrainer` writes "
                "model_tokens.safetensors into its run folder."
            ) from error
        except KeyError as error:
            raise DataError(f"codes = {path} has no code of the network {error}; was it made from this zoo?") from error


def mean_metrics(scores: torch.Tensor, batch: dict[str, Any]) -> dict[str, float]:
    """Average the ranking metrics over the lists of a batch (reading the scores is a synchronisation).

    Args:
        scores: (B, N) predicted score of each model of each list.
        batch: batch of lists with `accuracy` (B, N) and `model_mask` (B, N).
    """
    rows = []
    for own, accuracy, mask in zip(scores.cpu(), batch["accuracy"], batch["model_mask"], strict=True):
        rows.append(ranking_metrics(own[mask].double().numpy(), accuracy[mask].double().numpy()))
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
