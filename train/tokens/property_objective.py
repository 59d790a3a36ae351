"""The objective `properties` of ModelAutoEncoderTrainer: tokens that tell what a network is worth."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from beautilog import logger
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.optim import AdamW

from config.model_auto_encoder_trainer_config import ModelAutoEncoderTrainerConfig
from data.model_zoo import load_zoo
from data.network_population import Population
from data.population_batches import (
    OUTPUT_COMPONENTS,
    PopulationBatches,
    centred,
    make_targets,
    prepare_networks,
    split_population,
    task_numbers,
    within_task,
)
from evaluation.ranking.token_comparison import paired_difference, read, readers, with_family, within_r2
from model.network_encoder import NetworkEncoder, Networks
from model.zoo_families import FAMILIES
from storage.files import write_arrays, write_atomically
from train.schedulers import warmup_cosine

_NOISE = 0.1  # of the weights, as a share of each, in training
_CLEAR = 0.1  # deviations of the accuracy between two networks that are ranked
_RANKING, _GAP, _DOMAIN, _OUTPUTS = 0.5, 0.5, 0.2, 0.5  # weights in the loss; that of the accuracy is 1


class PropertyObjective:
    """What is trained, on what, and what came of it.

    Trained on four things at once: accuracy within a task (squared error, and which of two networks of a task is
    better), the generalisation gap, the image domain, and the network's own probabilities on 64 fixed images. The
    images are needed in training only; the token is made of weights alone.

    Args:
        config: settings of the trainer.
        population: networks that are learnt from.
    """

    def __init__(self, config: ModelAutoEncoderTrainerConfig, population: Population) -> None:
        self.config, self.population = config, population
        self.split = split_population(population, config.split)
        self.targets = make_targets(population, self.split.train)
        domains = len({network.domain for network in population.planned})
        self.model = NetworkEncoder(
            [family for family in FAMILIES if len(population.members(family))],
            {"accuracy": 1, "gap": 1, "domain": domains, "outputs": OUTPUT_COMPONENTS},
            unit_dim=config.unit_dim,
            code_dim=config.token_dim,
            dropout=config.dropout,
        )
        self.networks = prepare_networks(population, self.model)
        self.model.fit_scales({family: self._training_part(family) for family in self.networks})
        self.untrained = copy.deepcopy(self.model).eval()  # the control: what a learning rate of 0 would end with
        self.train_loader = self._loader(self.split.train, config.networks_per_batch, shuffle=True, seed=config.seed)
        self.val_loader = self._loader(self.split.val)
        self.optimizer = AdamW(self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        steps = -(-len(self.train_loader) // config.accumulation_steps) * config.epochs
        self.scheduler = warmup_cosine(self.optimizer, warmup_steps=steps // 20, total_steps=steps)

    def loss(self, batch: dict[str, Any], device: torch.device) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of a batch of `PopulationBatches`, and metrics.

        Args:
            batch: `networks` by family, and of each network `accuracy`, `gap`, `outputs`, `domain`, `task`.
            device: where to.
        """
        networks = {family: own.to(device) for family, own in batch["networks"].items()}
        if self.model.training:
            networks = {family: _noised(own) for family, own in networks.items()}
        told = self.model.tell(self.model(networks))
        accuracy, gap, outputs, domain, task = (
            batch[name].to(device) for name in ("accuracy", "gap", "outputs", "domain", "task")
        )
        said = told["accuracy"][:, 0]
        better = (task[:, None] == task) & (accuracy[:, None] - accuracy > _CLEAR)
        # softplus(-d): the logistic loss of saying that the better of two is the better one.
        ranking = (F.softplus(said - said[:, None]) * better).sum() / better.sum().clamp(min=1)
        wrong = {
            "accuracy_error": F.mse_loss(said, accuracy),
            "gap_error": F.mse_loss(told["gap"][:, 0], gap),
            "outputs_error": (told["outputs"] - outputs).square().sum(1).mean(),
            "domain_error": F.cross_entropy(told["domain"], domain),
        }
        loss = (
            wrong["accuracy_error"]
            + _RANKING * ranking
            + _GAP * wrong["gap_error"]
            + _OUTPUTS * wrong["outputs_error"]
            + _DOMAIN * wrong["domain_error"]
        )
        metrics = {name: value.detach() for name, value in wrong.items()} | {"ranking_error": ranking.detach()}
        return loss, metrics

    @torch.no_grad()
    def tokens(self, model: NetworkEncoder, device: torch.device) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return tokens (N, token_dim) of all networks of the population, and what the heads tell of them."""
        codes = np.zeros((len(self.population), model.code_dim))
        told: dict[str, np.ndarray] = {}
        for batch in self._loader(np.arange(len(self.population))):
            code = model({family: own.to(device) for family, own in batch["networks"].items()})
            rows = batch["numbers"].numpy()
            codes[rows] = code.cpu().numpy()  # synchronisation
            for name, values in model.tell(code).items():
                kept = told.setdefault(name, np.zeros((len(codes), values.shape[1])))
                kept[rows] = values.cpu().numpy()
        return codes, told

    def finish(self, device: torch.device) -> None:
        """Nothing is to be set after training."""

    def report(self, device: torch.device, file: Callable[[str], Path]) -> dict[str, Any]:
        """Write tokens, hold them to the test networks beside untrained ones, and say what training earned.

        Writes `model_tokens.safetensors`, of the zoo's networks, and `tokens.npz`: see `_measure` and
        `evaluation/plots/autoencoder_pictures.py`.

        Args:
            device: where the model is.
            file: function that gives the path of a file in the run folder.
        """
        named = {}
        for entry in load_zoo(self.config.zoo):
            networks = self.model.prepare(entry.vectors.float(), entry.family).to(device)
            with torch.no_grad():
                named[entry.name] = self.model({entry.family: networks}).cpu().contiguous()  # synchronisation
        write_atomically(file("model_tokens.safetensors"), lambda path: save_file(named, path))
        figures, arrays = self._measure(device)
        write_arrays(file("tokens.npz"), arrays)
        for name, value in figures.items():
            logger.info(f"  {name} = {value}")
        logger.info(sentence(figures))
        return figures

    def _measure(self, device: torch.device) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Hold trained and untrained tokens to the test networks.

        Returns:
            Figures by name. And arrays: of all N networks `families` and `domains` (N,), `trained_tokens` and
            `untrained_tokens` (N, K), `trained_head` and `untrained_head` (N,), what the head says of the accuracy; of
            the test part `test` (n,), numbers of the networks, their `tasks`, `truth` and what tokens predict,
            `trained_predicted` and `untrained_predicted`, logits of the accuracy less the task's mean.
        """
        self.model.eval()
        self.untrained.to(device)
        test, tasks = self.split.test, task_numbers(self.population)[self.split.test]
        truth = centred(within_task(self.population)[test], tasks)
        figures: dict[str, Any] = {}
        arrays: dict[str, np.ndarray] = {"test": test, "truth": truth, "tasks": tasks}
        for name in ("family", "domain"):
            values = [getattr(network, name) for network in self.population.planned]
            arrays["families" if name == "family" else "domains"] = np.array(values)
        said = {}
        for name, model in (("trained", self.model), ("untrained", self.untrained)):
            codes, told = self.tokens(model, device)
            rows = with_family(self.population, codes)
            predictions = readers(self.population, rows, self.split)
            if name == "trained":
                predictions["head"] = told["accuracy"][:, 0] * self.accuracy_scale
            reading = read(self.population, predictions, self.split)
            said[name] = reading.predicted
            figures[f"{name}_accuracy_r2"] = reading.r2
            for head, target in (("gap", self.targets.gap), ("outputs", self.targets.outputs)):
                wanted = target.numpy().reshape(len(codes), -1)
                figures[f"{name}_{head}_r2"] = _r2(wanted[self.split.train], wanted[test], told[head][test])
            domain = self.targets.domain.numpy()
            figures[f"{name}_domain_accuracy"] = float((told["domain"].argmax(1) == domain)[test].mean())
            arrays |= {f"{name}_tokens": codes.astype(np.float32), f"{name}_predicted": reading.predicted}
            arrays[f"{name}_head"] = told["accuracy"][:, 0] * self.accuracy_scale
        heads = {kind: centred(arrays[f"{kind}_head"][test], tasks) for kind in said}
        for kind, own in heads.items():
            figures[f"{kind}_head_accuracy_r2"] = within_r2(truth, own, tasks)
        # What a run says with its own heads; and what regressions read from its tokens, be they trained or not.
        for name, told in (("head_gain", heads), ("token_gain", said)):
            gain = paired_difference(truth, told["trained"], told["untrained"], groups=tasks)
            figures |= dict(zip((name, f"{name}_low", f"{name}_high"), gain, strict=True))
        return {name: round(float(value), 4) for name, value in figures.items()} | {"test_networks": len(test)}, arrays

    @property
    def accuracy_scale(self) -> float:
        """Standard deviation of the training networks' accuracies within tasks, as logits."""
        return float(within_task(self.population)[self.split.train].std())

    def _loader(
        self, chosen: np.ndarray, batch_size: int = 256, shuffle: bool = False, seed: int = 0
    ) -> PopulationBatches:
        return PopulationBatches(self.networks, self.population, self.targets, chosen, batch_size, shuffle, seed)

    def _training_part(self, family: str) -> Networks:
        known = np.isin(self.population.members(family), self.split.train)
        return self.networks[family].rows(torch.from_numpy(np.flatnonzero(known)))


def sentence(figures: dict[str, Any]) -> str:
    """Say in one sentence what training earned."""
    earned = "earned that" if figures["head_gain_low"] > 0 else "has not earned anything that can be told from chance"
    return (
        f"On {figures['test_networks']} networks of tasks and initial states never seen, the run tells "
        f"{figures['trained_head_accuracy_r2']:.2f} of the variance of accuracy within a task and "
        f"{figures['trained_gap_r2']:.2f} of the generalisation gap; the same run with learning_rate=1e-12, from the "
        f"same start, {figures['untrained_head_accuracy_r2']:.2f} and {figures['untrained_gap_r2']:.2f}: training "
        f"{earned} ({figures['head_gain']:+.2f}, 95 % over tasks {figures['head_gain_low']:+.2f} to "
        f"{figures['head_gain_high']:+.2f}). Regressions that are fitted to the tokens read "
        f"{figures['trained_accuracy_r2']:.2f} of the accuracy from trained and {figures['untrained_accuracy_r2']:.2f} "
        "from untrained ones."
    )


def _noised(networks: Networks) -> Networks:
    noise = 1 + _NOISE * torch.randn_like(networks.weights)
    return Networks(networks.weights * noise, networks.norms, networks.statistics)


def _r2(known: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(1 - ((truth - predicted) ** 2).sum() / max(((truth - known.mean(0)) ** 2).sum(), 1e-12))
