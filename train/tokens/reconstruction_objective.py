"""The objective `reconstruction` of ModelAutoEncoderTrainer: an autoencoder over the weights of a zoo's networks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from beautilog import logger
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from config import ConfigError
from config.model_auto_encoder_trainer_config import ModelAutoEncoderTrainerConfig
from constants.counting import counted
from data.model_zoo import ZooEntry, load_zoo
from data.network_weights import AugmentedLoader, join_tokens, split_networks
from data.tensor_loader import TensorLoader
from evaluation.ranking.weight_probes import probe_networks, reconstruction_r2
from model.model_auto_encoder import ModelAutoEncoder, principal_directions
from model.weight_alignment import align_units, common_reference, join_vector, shuffle_units, split_vector
from model.weight_tokens import layer_columns, weight_statistics
from model.zoo_families import family_shapes, permutation_groups
from storage.files import write_arrays, write_atomically


class ReconstructionObjective:
    """What is trained, on what, and what came of it.

    Args:
        config: settings of the trainer.
    """

    def __init__(self, config: ModelAutoEncoderTrainerConfig) -> None:
        self.config = config
        self.device = torch.device("cpu")
        self.zoo = load_zoo(self.config.zoo)
        self.split = split_networks(self.zoo, self.config.val_share, self.config.test_share, self.config.seed)
        self.model = self._build_model()
        self._fit_references()
        canonical = [self.model.canonical(entry.vectors.float(), entry.family) for entry in self.zoo]
        self.vectors = [vectors for vectors, _ in canonical]  # of each network (checkpoints, parameters)
        self.references = [references for _, references in canonical]  # likewise
        self.full_references = list(self.references)  # those that networks never seen have
        self._leave_training_networks_out_of_their_reference()
        self.known = self._fit_directions()
        train_tokens = self._tokens(self.split.train)
        self.model.fit_slots(train_tokens["tokens"], train_tokens["slots"])
        # Mean squared deviation of a training token from its slot's mean: the loss is 1 where a constant would do.
        deviation = train_tokens["tokens"] - self.model.mean[train_tokens["slots"]]
        self.token_variance = float(deviation.square().sum() / len(deviation))
        self.train_loader = AugmentedLoader(self._augmented_tokens, self.config.batch_size, self.config.seed)
        self.val_loader = TensorLoader(self._tokens(self.split.val), self.config.batch_size)
        self.optimizer = Adam(
            self.model.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        self.scheduler = ReduceLROnPlateau(
            self.optimizer,
            mode=self.config.monitor_direction,
            factor=self.config.lr_decay_factor,
            patience=self.config.lr_patience,
        )

    def loss(self, batch: dict[str, Any], device: torch.device) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the reconstruction error in units of the training tokens' variance, with the code's L1 penalty; R2.

        Args:
            batch: `tokens` (B, W) and `slots` (B,).
            device: where to.
        """
        tokens, slots = batch["tokens"].to(device), batch["slots"].to(device)
        back, codes = self.model(tokens, slots)
        squared = (back - tokens).square().sum() / len(tokens) / self.token_variance
        loss = squared
        if self.config.loss == "smooth_l1":
            unit = (self.token_variance / self.model.width) ** 0.5
            # Twice, so that small errors count as in the squared loss.
            loss = 2 * F.smooth_l1_loss(back / unit, tokens / unit, reduction="sum") / tokens.numel()
        if self.config.code_l1:
            loss = loss + self.config.code_l1 * codes.abs().mean()
        return loss, {"r2": 1 - squared.detach()}

    def finish(self, device: torch.device) -> None:
        """Set what standardises model tokens, which is saved with the weights."""
        self.device = device
        self.model.fit_model_tokens([self._network(index) for index in self.split.train])

    def report(self, device: torch.device, file: Callable[[str], Path]) -> dict[str, Any]:
        """Write every network's model tokens; measure reconstruction and probes on the held-out networks.

        Args:
            device: where the model is.
            file: function that gives the path of a file in the run folder.
        """
        tokens = [
            self.model.model_tokens(*self._network(index)).cpu() for index in range(len(self.zoo))
        ]  # synchronises
        named = {entry.name: token.contiguous() for entry, token in zip(self.zoo, tokens, strict=True)}
        write_atomically(file("model_tokens.safetensors"), lambda path: save_file(named, path))
        self._write_picture_data(tokens, file("autoencoder.npz"))
        results: dict[str, Any] = dict(self._reconstruction())
        for name, features in (("code", tokens), ("statistics", self._statistics())):
            results |= probe_networks(self.zoo, features, self.split.train, self.split.test, prefix=f"{name}_")
        logger.info(f"on {counted(len(self.split.test), 'held-out network')} (95 % intervals over networks):")
        for name, value in results.items():
            low, high = results.get(f"{name}_low"), results.get(f"{name}_high")
            if not name.endswith(("_low", "_high")):
                logger.info(f"  {name} = {value}" + ("" if low is None else f"  ({low} to {high})"))
        return results

    # ------------------------------------------------------------------------------------------------------ parts

    def _build_model(self) -> ModelAutoEncoder:
        config = self.config
        families = list(dict.fromkeys(entry.family for entry in self.zoo))
        try:
            return ModelAutoEncoder(
                shapes={family: family_shapes(family) for family in families},
                groups={family: permutation_groups(family) for family in families},
                tokenization=config.tokenization,
                chunk_width=config.chunk_width,
                code_dim=config.code_dim,
                compression=config.compression,
                hidden_dims=config.hidden_dims,
                activation=config.activation,
                dropout=config.dropout,
                references={family: len(self._init_seeds(family)) if config.align else 0 for family in families},
                directions=config.directions,
            )
        except ValueError as error:
            raise ConfigError([f"[ModelAutoEncoderTrainer] {error}"]) from error

    def _fit_references(self) -> None:
        """Make a reference of the training networks of each family that began at the same weights: their mean."""
        if not self.config.align:
            return
        for family, shapes in self.model.shapes.items():
            groups = self.model.groups[family]
            for number, seed in enumerate(self._init_seeds(family)):
                kin = [
                    split_vector(vector, shapes)
                    for entry in self._training_entries(family, seed)
                    for vector in entry.vectors.float().flip(0)  # the finished network first: its order is the start
                ]
                reference = join_vector(common_reference(kin, groups))
                self.model.get_buffer(f"references_{family}")[number] = reference

    def _leave_training_networks_out_of_their_reference(self) -> None:
        """Give each training network the mean of the others that began as it did.

        A reference is the mean of a few networks, itself among them, so a training network would be nearer to it than
        a network never seen, and the autoencoder would learn differences that are too small.
        """
        if not self.config.align:
            return
        for family in self.model.shapes:
            for seed in self._init_seeds(family):
                names = {entry.name for entry in self._training_entries(family, seed)}
                kin = [index for index in self.split.train if self.zoo.entries[index].name in names]
                for index in kin if len(kin) > 1 else []:
                    others = torch.cat([self.vectors[other] for other in kin if other != index]).mean(0)
                    self.references[index] = others.expand_as(self.vectors[index]).clone()

    def _fit_directions(self) -> dict[int, torch.Tensor]:
        """Set each family's directions.

        Returns:
            What of each training network lies along directions that were found without it, (C, parameters), by its
            number. Along those found with it there would be too little left to learn from.
        """
        if not self.model.directions:
            return {}
        known = {}
        for family in self.model.shapes:
            members = [index for index in self.split.train if self.zoo.entries[index].family == family]
            differences = [self.vectors[index] - self.full_references[index] for index in members]
            self.model.fit_directions(torch.cat(differences), family)
            for index in members if len(members) > 1 else ():
                # Where others began alike, their reference is the mean without this network too.
                seed = self.zoo.entries[index].init_seed
                others = [
                    self.vectors[other]
                    - (
                        self.references[index][:1]
                        if self.zoo.entries[other].init_seed == seed
                        else self.full_references[other]
                    )
                    for other in members
                    if other != index
                ]
                centre, directions = principal_directions(torch.cat(others), self.model.directions)
                own = self.vectors[index] - self.references[index]
                known[index] = centre + (own - centre) @ directions.T @ directions
        return known

    def _training_entries(self, family: str, init_seed: int | None = None) -> list[ZooEntry]:
        entries = [self.zoo.entries[index] for index in self.split.train]
        return [
            entry for entry in entries if entry.family == family and (init_seed is None or entry.init_seed == init_seed)
        ]

    def _init_seeds(self, family: str) -> list[int]:
        return sorted({entry.init_seed for entry in self._training_entries(family)})

    def _network(self, index: int) -> tuple[torch.Tensor, torch.Tensor, str]:
        vectors, references = self.vectors[index].to(self.device), self.references[index].to(self.device)
        return vectors, references, self.zoo.entries[index].family

    def _tokens(self, indices: Sequence[int], vectors: Sequence[torch.Tensor] | None = None) -> dict[str, Any]:
        parts = []
        for index in indices:
            family = self.zoo.entries[index].family
            differences = (vectors or self.vectors)[index] - self.references[index]
            tokens, slots = self.model.tokens_of(differences, family, self.known.get(index))
            parts.append({"tokens": tokens.flatten(0, 1), "slots": slots.repeat(len(tokens))})
        return join_tokens(parts)

    def _augmented_tokens(self, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Make an epoch's training tokens: each network with hidden units that changed places at random.

        Where networks are aligned they are aligned again, so what remains is what alignment can't undo.
        """
        if not self.config.permute:
            return self._tokens(self.split.train)
        vectors = list(self.vectors)
        for index in self.split.train:
            rows = zip(self.vectors[index], self.references[index], strict=True)
            family = self.zoo.entries[index].family
            vectors[index] = torch.stack([self._shuffled(vector, base, family, generator) for vector, base in rows])
        return self._tokens(self.split.train, vectors)

    def _shuffled(
        self, vector: torch.Tensor, reference: torch.Tensor, family: str, generator: torch.Generator
    ) -> torch.Tensor:
        shapes, groups = self.model.shapes[family], self.model.groups[family]
        network = shuffle_units(split_vector(vector, shapes), groups, self.config.permute, generator)
        if self.config.align:
            network = align_units(network, split_vector(reference, shapes), groups)
        return join_vector(network)

    def _statistics(self) -> list[torch.Tensor]:
        """Return what the code is measured against: each network's standardised layer-wise weight statistics."""
        places = max(len(shapes) for shapes in self.model.shapes.values())
        rows = [
            layer_columns(weight_statistics(vectors, self.model.shapes[entry.family]), places)
            for entry, vectors in zip(self.zoo, self.vectors, strict=True)
        ]
        known = torch.cat([rows[index] for index in self.split.train])
        return [(row - known.mean(0)) / known.std(0).clamp(min=1e-6) for row in rows]

    def _write_picture_data(self, tokens: Sequence[torch.Tensor], path: Path) -> None:
        """Write autoencoder.npz, from which evaluation/plots/autoencoder_pictures.py draws: see there what it holds."""
        held_out: dict[str, int] = {}  # of each family the first
        for index in self.split.test:
            held_out.setdefault(self.zoo.entries[index].family, index)
        arrays = {
            "tokens": np.stack([token[-1].numpy() for token in tokens]),
            "families": np.array([entry.family for entry in self.zoo]),
            "domains": np.array([entry.domain for entry in self.zoo]),
            "held_out": np.isin(np.arange(len(self.zoo)), self.split.test),
            "examples": np.array([self.zoo.entries[index].name for index in held_out.values()]),
        }
        for number, (family, index) in enumerate(held_out.items()):
            vectors, references, _ = self._network(index)
            back = self.model.reconstruct(vectors[-1:], references[-1:], family)
            shapes = self.model.shapes[family]
            layer, _ = max(shapes.items(), key=lambda item: item[1].numel())
            arrays[f"layer_{number}"] = np.array(layer)
            for name, network in (("weights", vectors), ("reconstruction", back), ("reference", references)):
                matrix = split_vector(network[-1], shapes)[layer].flatten(1)  # a row is a unit's incoming weights
                arrays[f"{name}_{number}"] = matrix.cpu().numpy()  # synchronisation
        write_arrays(path, arrays)

    def _reconstruction(self) -> dict[str, float | None]:
        """Measure R2 over all weights of the test networks.

        Against the mean of the training networks of the family; and, much harder, against the mean of those that began
        at the same initial weights: what is known without any code once one knows where a network began.
        """
        scores: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        beyond: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for index in self.split.test:
            entry = self.zoo.entries[index]
            vectors, references, family = self._network(index)
            back = self.model.reconstruct(vectors, references, family)
            error = (vectors - back).square().sum(1).cpu()  # synchronisation
            for table, init_seed in ((scores, None), (beyond, entry.init_seed)):
                names = {known.name for known in self._training_entries(family, init_seed)}
                kin = [self.vectors[other] for other, known in enumerate(self.zoo) if known.name in names]
                if kin:
                    mean = torch.cat(kin).mean(0)
                    table[entry.name] = (error, (self.vectors[index] - mean).square().sum(1))
        harder = reconstruction_r2(self.zoo, beyond)["reconstruction_r2"] if beyond else None
        return reconstruction_r2(self.zoo, scores) | {"reconstruction_r2_beyond_initial_weights": harder}
