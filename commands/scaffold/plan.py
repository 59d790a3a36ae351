"""All that the scaffolder's files are made from."""

from collections.abc import Sequence
from dataclasses import dataclass

from commands.scaffold.constructor import Field
from commands.scaffold.probe import Fit
from commands.scaffold.sizes import Sizes

_TARGETS = {"classification": "labels", "ranking": "truth", "transformer": "targets"}
_MEANINGS = {"classification": "the classes, from 0", "ranking": "higher is better", "transformer": "what comes next"}


@dataclass(frozen=True)
class Plan:
    """What is known of a new trainer.

    Attributes:
        trainer: class name of the trainer.
        stem: name of the trainer's file without suffix: `feature_fusion_trainer`.
        module: name of the model's module.
        model: class name of the model.
        batch: form of a batch: tensor, dict or dataclass.
        task: kind of task: autoencoder, ranking, transformer or classification.
        fields: keys of the trainer's config that the model is built from.
        fit: inputs and output of the model.
        sizes: source of the sizes of inputs and outputs: settings or constants.
        lazy: whether layers take their sizes from the first batch.
        path_entry: whether the model lives in the project, but in none of its packages.
    """

    trainer: str
    stem: str
    module: str
    model: str
    batch: str
    task: str
    fields: Sequence[Field]
    fit: Fit
    sizes: Sizes
    lazy: bool
    path_entry: bool

    @property
    def packed(self) -> bool:
        """Whether what is learnt from stands in one tensor behind the input."""
        return self.batch == "tensor" and self.task in ("classification", "ranking")

    @property
    def target(self) -> str:
        """Name of the targets; empty where they follow from the input."""
        if self.task not in _TARGETS or (self.batch == "tensor" and not self.packed):
            return ""
        name = _TARGETS[self.task]
        return f"true_{name}" if name in [each.name for each in self.fit.inputs] else name

    @property
    def every_step(self) -> bool:
        """Whether a transformer returns a value for each step, not only the one after the last."""
        return len(self.fit.output) == 2

    @property
    def batch_class(self) -> str:
        """Name of the batch's dataclass."""
        return f"{self.trainer.removesuffix('Trainer')}Batch"

    @property
    def batch_kind(self) -> str:
        """Type of a batch, and of the data that batches are cut from, as Python text."""
        kinds = {"tensor": "torch.Tensor", "dict": "dict[str, torch.Tensor]"}
        return kinds.get(self.batch, self.batch_class)

    @property
    def whole_targets(self) -> bool:
        """Whether targets are whole numbers."""
        return self.task == "classification" or (self.task == "transformer" and self.fit.inputs[0].tokens is not None)

    def cut(self, config: str) -> str:
        """The slice of the next value that a transformer returns, where it returns fewer numbers than it is given.

        Args:
            config: text that the config is named by in the code, such as `self.config`.
        """
        first, last = self.fit.inputs[0], len(self.fit.output) - 1
        fewer = first.tokens is None and self.fit.output[-1] < first.shape[-1]
        size = self.sizes.output(last, config)
        return f"[..., :{' ' if '.' in size else ''}{size}]" if fewer else ""

    def sample_lines(self, rows: str) -> list[str]:
        """Say what samples are, a line for each tensor: `dataset_tokens: (B, length, dataset_dim), float32`.

        Args:
            rows: text of the first size: `N` for a dataset, `B` for a batch.
        """
        if self.batch == "tensor":
            note = f", {_TARGETS[self.task]} last" if self.packed else ""
            return [f"({', '.join([rows, *self._one_tensor()])}), {self._kind(0)}{note}"]
        lines = [(each.name, self._shape(place), self._kind(place)) for place, each in enumerate(self.fit.inputs)]
        if self.target:
            shape = [self.sizes.doc_output(axis) for axis in range(len(self.fit.output))]
            shape = [] if self.task == "classification" else shape[:-1] if self.whole_targets else shape
            kind = "int64" if self.whole_targets else "float32"
            lines += [(self.target, shape, f"{kind}, {_MEANINGS[self.task]}")]
        return [f"{name}: ({', '.join([rows, *shape])}{'' if shape else ','}), {kind}" for name, shape, kind in lines]

    def _shape(self, place: int) -> list[str]:
        return [self.sizes.doc(place, axis) for axis in range(len(self.fit.inputs[place].shape))]

    def _one_tensor(self) -> list[str]:
        """The shape of a batch that is one tensor, with what the task adds to the model's input."""
        shape = self._shape(0)
        if self.task == "transformer":
            return [f"{shape[0]} + 1", *shape[1:]]
        if self.task == "ranking" and len(shape) == 1:
            return [f"{shape[0]} + {self.sizes.doc_output(0)}"]
        return [*shape[:-1], f"{shape[-1]} + 1"] if self.packed else shape

    def _kind(self, place: int) -> str:
        each = self.fit.inputs[place]
        kind = str(each.dtype).removeprefix("torch.")
        if each.mask is not None:
            return f"{kind}, {each.mask} for padding"
        return kind if each.tokens is None else f"{kind} below {self.sizes.doc_tokens(place)}"
