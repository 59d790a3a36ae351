"""The text of the files that the scaffolder writes, laid out as the project's formatter does it."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from typing import Any

from config.config_values import write_value
from train.scaffold_model import Field, literal_text
from train.scaffold_probe import Fit, Input, shape_text

_WIDTH = 120
_KINDS = {"autoencoder": "an autoencoder", "ranking": "a ranker", "transformer": "a transformer",
          "classification": "a classifier"}  # fmt: skip
_TARGETS = {"classification": "labels", "ranking": "truth", "transformer": "targets"}
_RATES = {"autoencoder": "1e-3", "ranking": "1e-3", "transformer": "1e-3", "classification": "0.01"}
_RATE_NOTES = {
    "autoencoder": "of Adam at the start; ReduceLROnPlateau lowers it",
    "ranking": "of Adam at the start; ReduceLROnPlateau lowers it",
    "transformer": "of AdamW at its highest; warm-up over the first tenth, then half a cosine to 0",
    "classification": "of SGD with momentum 0.9 at the start; falls twice, by lr_decay_factor",
}
_OPTIMIZERS = {"autoencoder": "Adam", "ranking": "Adam", "transformer": "AdamW", "classification": "SGD"}


@dataclass(frozen=True)
class Plan:
    """All that the files are made from.

    Attributes:
        trainer: class name.
        stem: of its file: `feature_fusion_trainer`.
        module: the model's.
        model: class name of the model.
        ours: whether the model's module is the project's own.
        path_entry: whether the model lives in the project, but in none of its packages.
        batch: tensor, dict or dataclass.
        task: autoencoder, ranking, transformer or classification.
        fields: the config's.
        fit: how the model is used.
    """

    trainer: str
    stem: str
    module: str
    model: str
    ours: bool
    path_entry: bool
    batch: str
    task: str
    fields: Sequence[Field]
    fit: Fit

    @property
    def target(self) -> str:
        """Name of the targets in a batch; empty where they follow from the input."""
        if self.task not in _TARGETS or self.batch == "tensor":
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


# ---- config --------------------------------------------------------------------------------------------------------


def config_text(plan: Plan) -> str:
    """Return the file of the config dataclass."""
    body = [line for field in plan.fields for line in _field_lines(field)]
    code = "\n".join(body)
    typing = [name for name in ("Annotated", "Literal") if f"{name}[" in code]
    bounds = [name for name in ("Gt", "Interval") if f"{name}(" in code]
    lines = [_title(f"Settings of {plan.trainer}", f": section `[{plan.trainer}]`"), ""]
    lines += ["from dataclasses import dataclass" + (", field" if "field(" in code else "")]
    lines += [f"from typing import {', '.join(typing)}"] if typing else []
    lines += ["", f"from annotated_types import {', '.join(bounds)}"] if bounds else []
    lines += ["", "from config.base_trainer_config import BaseTrainerConfig", "", "", "@dataclass(kw_only=True)"]
    lines += [f"class {plan.trainer}Config(BaseTrainerConfig):"]
    lines += [f'    """What `{plan.trainer}` reads, beside the settings of every trainer."""']
    return "\n".join([*lines, *([""] if body else []), *body]) + "\n"


def _field_lines(field: Field) -> list[str]:
    declared = f"    {field.name}: {field.source}"
    if field.default is not MISSING:
        text = literal_text(field.default)
        made = f"field(default_factory=lambda: {text})" if isinstance(field.default, list) else text
        declared += f" = {made}"
    return [declared, f'    """{field.doc}"""']


def section_text(plan: Plan) -> str:
    """Return the section of config.ini: keys without a default, and what suits the task."""
    rows = [(field.name, write_value(field.hint, field.value), field.doc[:-1]) for field in plan.fields
            if field.default is MISSING]  # fmt: skip
    rows += [("epochs", "10", "passes over the training data")]
    rows += [("learning_rate", _RATES[plan.task], _RATE_NOTES[plan.task])]
    lines = [f"{key} = {value}" for key, value, _ in rows]
    width = max(max(map(len, lines)), 31)
    rows = [(*row, note if note[1:2].isupper() else note[:1].lower() + note[1:]) for *row, note in rows]
    notes = [f"{line:<{width}}   # {note}" for line, (_, _, note) in zip(lines, rows, strict=True)]
    return f"; Trains {plan.model}, {_KINDS[plan.task]}.\n[{plan.trainer}]\n" + "\n".join(notes) + "\n"


# ---- trainer -------------------------------------------------------------------------------------------------------


def trainer_text(plan: Plan) -> str:
    """Return the trainer's file."""
    parts = [_trainer_head(plan)]
    parts += [_batch_class(plan)] if plan.batch == "dataclass" else []
    parts += [_trainer_class(plan), _data_function(plan)]
    return "\n\n".join(parts)


def _trainer_head(plan: Plan) -> str:
    own = _import(plan.module, plan.model)
    third = [f"from torch.optim import {_OPTIMIZERS[plan.task]}"]
    scheduler = {"transformer": None, "classification": "StepLR"}.get(plan.task, "ReduceLROnPlateau")
    third += [f"from torch.optim.lr_scheduler import {scheduler}"] if scheduler else []
    third += [] if plan.ours else [own]
    ours = ["from config import ConfigParser", _import(f"config.{plan.stem}_config", f"{plan.trainer}Config")]
    ours += ["from data.tensor_loader import TensorLoader", "from train.base_trainer import BaseTrainer"]
    ours += ["from train.schedulers import warmup_cosine"] if plan.task == "transformer" else []
    ours += ["from model.ranking_losses import list_net"] if plan.task == "ranking" else []
    ours += [own] if plan.ours else []
    lines = [_title(f"Trains {plan.model}", f": `python train.py {plan.trainer}`"), ""]
    lines += ["from dataclasses import dataclass", ""] if plan.batch == "dataclass" else []
    lines += ["import torch"] + ([] if plan.task == "ranking" else ["import torch.nn.functional as F"])
    return "\n".join([*lines, *_sorted(third), "", *_sorted(ours), ""])


def _title(text: str, more: str) -> str:
    """A module's docstring; what is less needed goes where the names are long."""
    return f'"""{text}{more}."""' if len(f"{text}{more}") <= _WIDTH - 7 else f'"""{text}."""'


def _import(module: str, name: str) -> str:
    line = f"from {module} import {name}"
    return line if len(line) <= _WIDTH else f"from {module} import (\n    {name},\n)"


def _sorted(imports: Sequence[str]) -> list[str]:
    return sorted(imports, key=lambda line: line.split()[1].lower())


def _batch_class(plan: Plan) -> str:
    lines = ["@dataclass", f"class {plan.batch_class}:", f'    """A batch of {plan.trainer}."""', ""]
    for name, shape in _batch_parts(plan):
        lines += [f"    {name}: torch.Tensor", f'    """{shape}."""']
    return "\n".join(lines) + "\n"


def _batch_parts(plan: Plan) -> list[tuple[str, str]]:
    parts = [(each.name, shape_text(each.shape)) for each in plan.fit.inputs]
    series = plan.fit.inputs[0].tokens is None
    wanted = plan.fit.output if series or plan.task != "transformer" else plan.fit.output[:-1]
    wanted = () if plan.task == "classification" else wanted
    return parts + ([(plan.target, shape_text(wanted))] if plan.target else [])


def _trainer_class(plan: Plan) -> str:
    arguments = [f"{field.parameter}=self.config.{field.name}" for field in plan.fields]
    lines = [f"class {plan.trainer}(BaseTrainer):", f'    """Trains {plan.model}, {_KINDS[plan.task]}."""', ""]
    lines += ["    def __init__(self) -> None:", f"        self.config = ConfigParser.get({plan.trainer}Config)"]
    lines += _call(f"self.model = {plan.model}", arguments)
    lines += ["        train_data, val_data = _data()"]
    rows = ["train_data", "self.config.batch_size", "shuffle=True", "seed=self.config.seed"]
    lines += _call("self.train_loader = TensorLoader", rows)
    lines += _call("self.val_loader = TensorLoader", ["val_data", "self.config.batch_size"])
    lines += _optimizer_lines(plan.task)
    bar = ["total=len(self.train_loader) * self.config.epochs", f'desc="Training {plan.model}"']
    lines += [*_call("self.init_progress_bar", bar), "        super().__init__()", ""]
    return "\n".join([*lines, *_hook_lines(plan)]) + "\n"


def _optimizer_lines(task: str) -> list[str]:
    basic = ["self.model.parameters()", "lr=self.config.learning_rate", "weight_decay=self.config.weight_decay"]
    if task == "classification":
        basic.insert(2, "momentum=0.9")
    lines = _call(f"self.optimizer = {_OPTIMIZERS[task]}", basic)
    if task == "transformer":
        lines += ["        steps = -(-len(self.train_loader) // self.config.accumulation_steps) * self.config.epochs"]
        schedule = ["self.optimizer", "warmup_steps=steps // 10", "total_steps=steps"]
        return lines + _call("self.scheduler = warmup_cosine", schedule)
    if task == "classification":
        schedule = ["self.optimizer", "step_size=max(1, self.config.epochs // 3)", "gamma=self.config.lr_decay_factor"]
        return lines + _call("self.scheduler = StepLR", schedule)
    schedule = ["self.optimizer", 'mode="min"', "factor=self.config.lr_decay_factor"]
    return lines + _call("self.scheduler = ReduceLROnPlateau", [*schedule, "patience=self.config.lr_patience"])


def _call(before: str, arguments: Sequence[str], indent: int = 8) -> list[str]:
    """A call on one line, or its arguments on a line of their own, or each on its own, as the formatter would."""
    space, joined = " " * indent, ", ".join(arguments)
    if len(f"{space}{before}({joined})") <= _WIDTH:
        return [f"{space}{before}({joined})"]
    if len(f"{space}    {joined}") <= _WIDTH:
        return [f"{space}{before}(", f"{space}    {joined}", f"{space})"]
    return [f"{space}{before}(", *(f"{space}    {argument}," for argument in arguments), f"{space})"]


# ---- the hook ------------------------------------------------------------------------------------------------------


def _hook_lines(plan: Plan) -> list[str]:
    lines = _hook_head(plan)
    first = plan.fit.inputs[0].name
    reads = {each.name: _read(plan, each.name) for each in plan.fit.inputs}
    if plan.batch == "tensor":
        lines += ["        batch = batch.to(self.device)"]
        reads[first] = "batch"
        if plan.task == "transformer":
            last = "batch[:, 1:]" if plan.every_step else "batch[:, -1]"
            lines += [f"        inputs, targets = batch[:, :-1], {last}{_cut(plan)}"]
            reads[first] = "inputs"
    if plan.batch == "dataclass":
        lines += _call(f"fields = {plan.batch_class}",
                       ["**{name: rows.to(self.device) for name, rows in batch.items()}"])  # fmt: skip
    if plan.batch != "tensor" and plan.task == "autoencoder":
        lines += [f"        wanted = {reads[first]}"]
        reads[first] = "wanted"
    if plan.target:
        lines += [f"        {plan.target} = {_read(plan, plan.target)}"]
    arguments = [f"{each.name}={reads[each.name]}" if each.keyword else reads[each.name] for each in plan.fit.inputs]
    called = _call("output = self.model", arguments)
    called[-1] += "[0]" if plan.fit.in_tuple else ""
    if plan.task == "transformer" and plan.every_step:
        lines += [
            "        # The model must not look ahead (a causal mask): the targets are its inputs, one step later."
        ]
    return [*lines, *called, *_loss_lines(plan)]


def _hook_head(plan: Plan) -> list[str]:
    if plan.batch == "tensor":
        shape = plan.fit.inputs[0].shape
        shape = (shape[0] + 1, *shape[1:]) if plan.task == "transformer" else shape
        kind, name, about = "torch.Tensor", "compute_loss", [f"            batch: {shape_text(shape)}."]
    else:
        kind, name = "dict[str, torch.Tensor]", "_forward_batch"
        parts = [f"`{part}` {shape}" for part, shape in _batch_parts(plan)]
        about = [f"            batch: {parts[0]}", *(f"                {part}" for part in parts[1:])]
        about = [f"{line}{',' if index < len(parts) - 1 else '.'}" for index, line in enumerate(about)]
    lines = [f"    def {name}(self, batch: {kind}) -> torch.Tensor:", '        """Return the mean loss of a batch.', ""]
    return [*lines, "        Args:", *about, '        """']


def _read(plan: Plan, name: str) -> str:
    return f"fields.{name}" if plan.batch == "dataclass" else f'batch["{name}"].to(self.device)'


def _cut(plan: Plan) -> str:
    """The slice of the next value that the model returns, where it returns fewer numbers than it is given."""
    first = plan.fit.inputs[0]
    fewer = first.tokens is None and plan.fit.output[-1] < first.shape[-1]
    return f"[..., :{plan.fit.output[-1]}]" if fewer else ""


def _loss_lines(plan: Plan) -> list[str]:
    target = plan.target or ("batch" if plan.batch == "tensor" else "wanted")
    if plan.task == "autoencoder":
        return [f"        return F.mse_loss(output, {target})"]
    if plan.task == "classification":
        accuracy = f"(output.argmax(1) == {target}).float().mean()"
        metrics = f'        self._collect_batch_metrics({{"accuracy": {accuracy}}})'
        return [metrics, f"        return F.cross_entropy(output, {target})"]
    if plan.task == "ranking":
        top = f"(output.argmax(1) == {target}.argmax(1)).float().mean()"
        mask = f"        return list_net(output, {target}, torch.ones_like({target}, dtype=torch.bool))"
        return [f'        self._collect_batch_metrics({{"top1": {top}}})', mask]
    target = plan.target or "targets"
    if plan.fit.inputs[0].tokens is None:
        return [f"        return F.mse_loss(output, {target})"]
    if plan.every_step:
        return [f"        return F.cross_entropy(output.flatten(0, 1), {target}.flatten())"]
    return [f"        return F.cross_entropy(output, {target})"]


# ---- synthetic data ------------------------------------------------------------------------------------------------


def _data_function(plan: Plan) -> str:
    kind = "torch.Tensor" if plan.batch == "tensor" else "dict[str, torch.Tensor]"
    lines = ["# ---- REPLACE THIS: the one place that makes data; what is here is synthetic ----", ""]
    lines += [
        "",
        f"def _data() -> tuple[{kind}, {kind}]:",
        '    """Return the samples for training and those for validation.',
        "",
    ]
    lines += [
        "    Put your own data here, in the same shapes, or build loaders of your own where `_data` is called.",
        '    """',
    ]
    lines += ["    count, training = 256, 192", "    generator = torch.Generator().manual_seed(0)"]
    lines += _transformer_data(plan) if plan.task == "transformer" else _plain_data(plan)
    if plan.batch == "tensor":
        return "\n".join([*lines, "    return samples[:training], samples[training:]", ""])
    lines += ["    train_data = {name: rows[:training] for name, rows in samples.items()}"]
    lines += ["    val_data = {name: rows[training:] for name, rows in samples.items()}"]
    return "\n".join([*lines, "    return train_data, val_data", ""])


def _plain_data(plan: Plan) -> list[str]:
    groups = plan.fit.output[0] if plan.task == "classification" else 4
    lines = [] if plan.task == "ranking" else [f"    kinds = torch.arange(count) % {groups}"]
    if plan.batch != "tensor":
        start = f'{{"{plan.target}": kinds}}' if plan.task == "classification" else "{}"
        lines += [f"    samples: dict[str, torch.Tensor] = {start}"]
    for each in plan.fit.inputs:
        lines += _input_lines(
            each, "samples" if plan.batch == "tensor" else f'samples["{each.name}"]', plan.task, groups
        )
    if plan.task == "ranking":
        lines += [f'    samples["{plan.target}"] = {_truth(plan)}']
    return lines


def _input_lines(each: Input, place: str, task: str, groups: int) -> list[str]:
    shape = "".join(f", {size}" for size in each.shape)
    if each.tokens is not None:
        whole = f"(count{shape or ','})"
        if task == "classification" and len(each.shape) == 1:  # low numbers in one class, high ones in another
            drawn = f"torch.randint(3, {whole}, generator=generator)"
            return [f"    {place} = (3 * kinds[:, None] + {drawn}) % {each.tokens}"]
        return [f"    {place} = torch.randint({each.tokens}, {whole}, generator=generator)"]
    if task in ("ranking", "transformer"):
        return [f"    {place} = torch.randn(count{shape}, generator=generator)"]
    return [
        f"    {place} = torch.randn({groups}{shape}, generator=generator)[kinds]",
        f"    {place} += 0.5 * torch.randn(count{shape}, generator=generator)",
    ]


def _truth(plan: Plan) -> str:
    """A truth that can be learnt: the mean of what is given of each item."""
    (items,) = plan.fit.output
    fitting = [each for each in plan.fit.inputs if each.shape[:1] == (items,) and each.tokens is None]
    if not fitting:
        return f"torch.randn(count, {items}, generator=generator)"
    # The last, as a query or a dataset is named before the items that are ranked for it.
    place = f'samples["{fitting[-1].name}"]'
    return {1: place}.get(len(fitting[-1].shape), f"{place}.flatten(2).mean(2)")


def _transformer_data(plan: Plan) -> list[str]:
    first, others = plan.fit.inputs[0], plan.fit.inputs[1:]
    length = first.shape[0]
    if first.tokens is None:
        lines = [f"    phases = 6.28 * torch.rand(count, 1, {first.shape[1]}, generator=generator)"]
        lines += [f"    series = torch.sin(0.5 * torch.arange({length + 1})[None, :, None] + phases)"]
    else:
        lines = [f"    starts = torch.randint({first.tokens}, (count, 1), generator=generator)"]
        lines += [f"    series = (starts + torch.arange({length + 1})) % {first.tokens}"]
    if plan.batch == "tensor":
        return [line.replace("    series =", "    samples =") for line in lines]
    last = "series[:, 1:]" if plan.every_step else "series[:, -1]"
    entries = f'{{"{first.name}": series[:, :-1], "{plan.target}": {last}{_cut(plan)}}}'
    lines += [f"    samples = {entries}"]
    for each in others:
        lines += _input_lines(each, f'samples["{each.name}"]', plan.task, 4)
    return lines


# ---- test ----------------------------------------------------------------------------------------------------------


def test_text(plan: Plan) -> str:
    """Return the file of the trainer's test."""
    words: list[Any] = [f'"{plan.trainer}"', '"epochs=1"', '"plot_at_end=off"']
    head = [f'"""{plan.trainer} trains, through the command line."""', "", "import json"]
    if plan.path_entry:  # the test's copy of the project has its packages alone
        head += ["from pathlib import Path", "", "ROOT = Path(__file__).resolve().parents[2]"]
        words += ["PYTHONPATH=str(ROOT)"]
    name = plan.stem
    lines = [*head, "", "", f"def test_{name}_trains_an_epoch(project):"]
    lines += _call("done = project.run", words, indent=4)
    lines += ["    assert done.returncode == 0, done.stderr"]
    lines += [f'    metrics = project.runs("{plan.trainer.removesuffix("Trainer")}")[-1] / "metrics.json"']
    lines += ['    history = json.loads(metrics.read_text())["history"]']
    lines += ['    assert len(history["train_loss"]) == len(history["val_loss"]) == 1', ""]
    return "\n".join(lines)
