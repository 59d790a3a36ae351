"""What bench/speed.py trains: three workloads, two larger ones for a GPU, and the clock that all contestants run by."""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

LEARNING_RATE = 1e-3
DECAY = 0.01  # of AdamW
PLATEAU = {"mode": "min", "factor": 0.1, "patience": 10}
_NOISE = 0.1
_DATASET_TOKENS, _MODEL_TOKENS, _FEATURES = 16, 32, 24


@dataclass(frozen=True)
class Size:
    """How large a workload is, and how it is trained.

    Attributes:
        kind: `autoencoder` or `ranker`.
        widths: of an autoencoder's layers; of a ranker the width and the number of layers and heads.
        samples: in all; a tenth of them is for validation.
        clip: largest norm of the gradient; 0 is without.
    """

    title: str
    kind: str
    widths: tuple[int, ...]
    samples: int
    batch: int
    epochs: int
    clip: float = 0.0


SIZES = {
    "A": Size("tiny MLP autoencoder", "autoencoder", (64, 32, 64), 8192, 32, 60),
    "B": Size("weights autoencoder", "autoencoder", (8192, 1024, 512, 1024, 8192), 2048, 64, 3, clip=1.0),
    "C": Size("ranker", "ranker", (128, 2, 4), 1024, 16, 3),
    # Sizes that give a GPU something to do.
    "B-large": Size(
        "weights autoencoder, large batches", "autoencoder", (8192, 1024, 512, 1024, 8192), 40960, 4096, 6, clip=1.0
    ),
    "C-large": Size("large ranker", "ranker", (1024, 8, 16), 8192, 256, 3),
}
QUICK = {  # to try things out
    "A": {"samples": 1000, "epochs": 3},
    "B": {"samples": 160, "widths": (1024, 128, 64, 128, 1024), "batch": 16},
    "C": {"samples": 120, "widths": (32, 1, 4)},
    "B-large": {"samples": 160, "widths": (1024, 128, 64, 128, 1024), "batch": 64},
    "C-large": {"samples": 120, "widths": (64, 2, 4), "batch": 32},
}


class Work:
    """A workload's data, model, loss, optimizer and scheduler: the same numbers in each process.

    Attributes:
        train, val: (inputs, targets); of an autoencoder twice the same tensor.
    """

    def __init__(self, key: str, quick: bool) -> None:
        self.size = replace(SIZES[key], **QUICK[key]) if quick else SIZES[key]
        inputs, targets = _data(self.size)
        self.has_targets = targets is not inputs
        cut = len(inputs) - len(inputs) // 10
        self.train = (inputs[:cut], targets[:cut])
        self.val = (inputs[cut:], targets[cut:])
        self.steps_per_epoch = math.ceil(cut / self.size.batch)

    def net(self) -> nn.Module:
        """Make the model, with the same initial weights each time."""
        torch.manual_seed(7)
        if self.size.kind == "ranker":
            return Ranker(*self.size.widths)
        # The tiny one is an MLP with ReLU, the large one has GELU.
        act = nn.GELU if len(self.size.widths) > 3 else nn.ReLU
        layers: list[nn.Module] = []
        for before, after in zip(self.size.widths, self.size.widths[1:], strict=False):
            layers += [nn.Linear(before, after), act()]
        return nn.Sequential(*layers[:-1])

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar tensor."""
        if self.size.kind == "ranker":  # listwise: cross-entropy of softmax(scores) against the list's distribution
            return F.cross_entropy(output, target)
        return F.mse_loss(output, target)

    def optimizer(self, parameters: Any, **more: Any) -> torch.optim.Optimizer:
        """Make the optimizer: Adam, of the ranker AdamW."""
        if self.size.kind == "ranker":
            return torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=DECAY, **more)
        return torch.optim.Adam(parameters, lr=LEARNING_RATE, **more)

    @staticmethod
    def plateau(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
        """Make the scheduler that steps on the validation loss."""
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **PLATEAU)

    def loaders(self, pin: bool = False) -> tuple[Any, Any]:
        """Make two DataLoaders over TensorDatasets, as most people do."""
        from torch.utils.data import DataLoader, TensorDataset

        count = 2 if self.has_targets else 1
        train, val = TensorDataset(*self.train[:count]), TensorDataset(*self.val[:count])
        return (
            DataLoader(train, batch_size=self.size.batch, shuffle=True, pin_memory=pin),
            DataLoader(val, batch_size=self.size.batch, pin_memory=pin),
        )

    @torch.no_grad()
    def train_loss(self, net: nn.Module, device: torch.device) -> float:
        """Return a model's mean loss over all training samples: the same check for everyone."""
        net.eval()
        total = 0.0
        for x, y in zip(*(part.split(256) for part in self.train), strict=True):
            total += self.loss(net(x.to(device)), y.to(device)).item() * len(x)  # host-device synchronisation
        return total / len(self.train[0])


class Ranker(nn.Module):
    """Scores a list of model tokens, given a dataset's tokens in the same sequence."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.of_dataset, self.of_model = nn.Linear(_FEATURES, width), nn.Linear(_FEATURES, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.score = nn.Linear(width, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return scores (B, 32) of tokens (B, 16 + 32, 24): a dataset's tokens, then the models'."""
        of_dataset = self.of_dataset(tokens[:, :_DATASET_TOKENS])
        of_models = self.of_model(tokens[:, _DATASET_TOKENS:])
        hidden = self.encoder(torch.cat([of_dataset, of_models], dim=1))
        return self.score(hidden[:, _DATASET_TOKENS:]).squeeze(-1)


def _data(size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(2026)
    if size.kind == "autoencoder":
        # Low rank and noise: something to learn, and something that can't be learnt.
        rank = max(4, min(32, size.widths[0] // 8))
        factors = torch.randn(size.samples, rank, generator=draw) @ torch.randn(rank, size.widths[0], generator=draw)
        samples = factors / math.sqrt(rank) + _NOISE * torch.randn(factors.shape, generator=draw)
        return samples, samples
    tokens = torch.randn(size.samples, _DATASET_TOKENS + _MODEL_TOKENS, _FEATURES, generator=draw)
    form = torch.randn(_FEATURES, _FEATURES, generator=draw) / math.sqrt(_FEATURES)
    dataset = tokens[:, :_DATASET_TOKENS].mean(1)  # (N, F)
    merit = (tokens[:, _DATASET_TOKENS:] @ form @ dataset.unsqueeze(-1)).squeeze(-1)  # (N, 32)
    ranks = merit.argsort(1, descending=True).argsort(1)
    return tokens, torch.softmax(-ranks / 4.0, dim=1)


class Clock:
    """Notes when a run's training begins and its epochs end, and writes the line of metrics that everyone writes.

    Args:
        file: receives a line of JSON for each epoch.
        device: where the run computes.
    """

    def __init__(self, file: Path, device: torch.device) -> None:
        self.file, self.device = file, device
        self.marks: list[float] = []  # training begins, first epoch ends, second epoch ends, ...
        self._used: list[tuple[float, float]] = []  # seconds of processor time: all the machine's, this process's
        self.end = 0.0

    def begin(self) -> None:
        """Note that training begins."""
        self._mark()

    def epoch(self, train_loss: float, val_loss: float, rate: float) -> None:
        """Note an epoch's end, validation and scheduler included."""
        line = {"epoch": len(self.marks), "train_loss": train_loss, "val_loss": val_loss, "learning_rate": rate}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self._mark()

    def finish(self) -> None:
        """Note that all is done, files at the end included."""
        self._synchronize()
        self.end = time.monotonic()

    def _mark(self) -> None:
        self._synchronize()
        self.marks.append(time.monotonic())
        self._used.append((machine_seconds(), time.process_time()))

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()  # host-device synchronisation: queued work belongs to the time before the mark

    def epoch_seconds(self) -> list[float]:
        """Return each epoch's time."""
        return [after - before for before, after in zip(self.marks, self.marks[1:], strict=False)]

    def others(self) -> float:
        """Return the share of the machine that other processes took in the epochs that count, those after the first.

        Compilers that a run starts work in its first epoch, as other processes.
        """
        (machine, own), (machine_end, own_end) = self._used[1], self._used[-1]
        resolution = 2 / os.sysconf("SC_CLK_TCK")  # the kernel counts in ticks
        taken = (machine_end - machine) - (own_end - own) - resolution
        return max(0.0, taken) / ((self.marks[-1] - self.marks[1]) * (os.cpu_count() or 1))


def machine_seconds() -> float:
    """Return the processor time that everything on the machine has used; 0 where /proc/stat doesn't say."""
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return 0.0
    user, nice, system, _idle, _wait, interrupts, soft, stolen = map(int, words[1:9])
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


@dataclass
class Outcome:
    """What a contestant hands back.

    Attributes:
        net: the model with its final weights.
        steps: optimizer steps made.
        form: of the step, where there are several.
    """

    net: nn.Module
    steps: int
    form: str = ""


Contestant = Callable[[Work, Clock, torch.device, Path], Outcome]
