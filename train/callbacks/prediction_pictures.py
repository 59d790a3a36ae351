"""What the model makes of a few validation samples, as a picture after each validation."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from config import ConfigError
from train.callbacks.callback import Callback
from train.seeding import preserved_random_states
from train.trainer_protocol import Trainer


class PredictionPictures(Callback):
    """Draws what the model makes of the first validation samples: predictions/epoch-00003.png, plots/predictions.png.

    It looks at the first call of the model in a validation, so it costs no forward pass. The model's first argument and
    its result must be tensors with a row for each sample. Images and curves are shown beside what the model made of
    them; where it gives a score for each of some classes, the first three are shown, and the sample's own class where
    the dataset gives pairs of an input and a class, in that order.

    Args:
        samples: how many are drawn, at most 16.
        shape: shape of a sample that the model is given flat: (height, width), or (channels, height, width); None takes
            it as it is.
        every_n_validations: draw after every so many validations; a picture takes a second or so.

    Raises:
        ConfigError: an argument means nothing.
    """

    every_step = True  # a compiled validation doesn't call the model

    def __init__(self, samples: int = 8, shape: tuple[int, ...] | None = None, every_n_validations: int = 1) -> None:
        if samples < 1 or every_n_validations < 1:
            raise ConfigError(
                "PredictionPictures: samples and every_n_validations must be 1 or more; they are "
                f"{samples} and {every_n_validations}."
            )
        if shape is not None and not isinstance(shape, tuple | list):
            raise ConfigError(f"PredictionPictures: shape = {shape!r} must be as (height, width).")
        self._samples, self._shape, self._every = min(samples, 16), shape, every_n_validations
        self._validations = 0
        self._handle: RemovableHandle | None = None
        self._seen: tuple[torch.Tensor, torch.Tensor] | None = None

    def on_train_begin(self, trainer: Trainer) -> None:
        """Begin to look at the model's calls."""
        if trainer.is_main_process:
            self._handle = trainer.model.register_forward_hook(self._look, with_kwargs=True)

    def _look(self, model: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Keep the first call of a validation: rows of its input and of its output, on the host."""
        if model.training or self._seen is not None:
            return
        given = next((value for value in [*args, *kwargs.values()] if isinstance(value, torch.Tensor)), None)
        made = output[0] if isinstance(output, tuple | list) and output else output
        if isinstance(given, torch.Tensor) and isinstance(made, torch.Tensor) and len(given) == len(made):
            # Host-device synchronisations, once in a validation.
            self._seen = (given[: self._samples].detach().float().cpu(), made[: self._samples].detach().float().cpu())

    def on_validation_end(self, trainer: Trainer, numbers: dict[str, float]) -> None:
        """Draw what was seen."""
        seen, self._seen = self._seen, None
        self._validations += 1
        if self._handle is None or self._validations % self._every:
            return
        if seen is None:
            raise TypeError("the model's first argument and its result must be tensors with a row for each sample")
        from evaluation.plots.prediction_pictures import draw_predictions  # matplotlib takes a second to import

        epoch, folder = trainer.record.progress.epoch, trainer.run_folder
        title = f"{trainer.model_name}, predictions after epoch {epoch}"
        classes = classes_of(trainer.val_loader, seen[0])
        draw_predictions(
            self._shaped(seen[0]), self._shaped(seen[1]), classes, title,
            [folder.file(f"predictions/epoch-{epoch:05d}.png"), folder.file("plots/predictions.png")],
        )  # fmt: skip

    def _shaped(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows of samples, (samples, ...), each in the shape that was asked for, where it has as many values."""
        if self._shape is None or rows[0].numel() != math.prod(self._shape):
            return rows
        return rows.reshape(len(rows), *self._shape)

    def on_train_end(self, trainer: Trainer, state: str) -> None:
        """Leave the model as it was."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def state_dict(self) -> dict[str, Any]:
        """Return how many validations there were."""
        return {"validations": self._validations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self._validations = state["validations"]


def classes_of(loader: Any, inputs: torch.Tensor) -> list[int] | None:
    """Return the classes of a loader's first samples, where its dataset gives (input, class) and these are its inputs.

    Args:
        loader: gives the validation batches.
        inputs: what the model was given, (samples, ...).
    """
    dataset = getattr(loader, "dataset", None)
    if dataset is None or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        return None
    classes = []
    with preserved_random_states():
        for number in range(min(len(inputs), len(dataset))):
            try:
                sample = dataset[number]
            except Exception:  # not every dataset goes by numbers, and not every sample need be readable
                return None
            sample = list(sample.values()) if isinstance(sample, Mapping) else sample
            if not (isinstance(sample, tuple | list) and len(sample) == 2):
                return None
            given, target = torch.as_tensor(sample[0]), torch.as_tensor(sample[1])
            row = inputs[number]
            same = given.shape == row.shape and torch.allclose(given.float().cpu(), row, atol=1e-5)
            if not same or target.dim() or target.is_floating_point():
                return None
            classes.append(int(target))
    return classes
