"""The text of the files that the scaffolder writes, laid out as the project's formatter does it."""

from dataclasses import MISSING
from typing import Any

from commands.scaffold.constructor import Field, Holder
from commands.scaffold.layout import call, import_line, literal_text, sorted_imports, title
from commands.scaffold.plan import Plan
from commands.scaffold.synthetic import data_text
from config.config_values import write_value
from constants import PROJECT_ROOT, command

_PACKAGES = ("config", "constants", "data", "evaluation", "model", "train")
_KINDS = {"autoencoder": "an autoencoder", "ranking": "a ranker", "transformer": "a transformer",
          "classification": "a classifier"}  # fmt: skip
_RATES = {"autoencoder": "1e-3", "ranking": "1e-3", "transformer": "1e-3", "classification": "0.01"}
_RATE_NOTES = {
    "autoencoder": "of Adam at the start; ReduceLROnPlateau lowers it",
    "ranking": "of Adam at the start; ReduceLROnPlateau lowers it",
    "transformer": "of AdamW at its highest; warm-up over the first tenth, then half a cosine to 0",
    "classification": "of SGD with momentum 0.9 at the start; times lr_decay_factor after each third of the epochs",
}
_OPTIMIZERS = {"autoencoder": "Adam", "ranking": "Adam", "transformer": "AdamW", "classification": "SGD"}


# ---- config --------------------------------------------------------------------------------------------------------


def config_text(plan: Plan) -> str:
    """Return the file of the config dataclass."""
    body = [line for field in plan.fields for line in _field_lines(field)]
    code = "\n".join(body)
    typing = [name for name in ("Annotated", "Literal") if f"{name}[" in code]
    bounds = [name for name in ("Ge", "Gt", "Interval") if f"{name}(" in code]
    lines = [title(f"Settings of {plan.trainer}", f": section `[{plan.trainer}]`"), ""]
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
    rows = [(key, value, note if note[1:2].isupper() else note[:1].lower() + note[1:]) for key, value, note in rows]
    notes = [f"{line:<{width}}   # {note}" for line, (_, _, note) in zip(lines, rows, strict=True)]
    return f"; Trains {plan.model}, {_KINDS[plan.task]}.\n[{plan.trainer}]\n" + "\n".join(notes) + "\n"


# ---- trainer -------------------------------------------------------------------------------------------------------


def trainer_text(plan: Plan) -> str:
    """Return the trainer's file."""
    trainer = _trainer_class(plan)
    parts = [_trainer_head(plan), *([_batch_class(plan)] if plan.batch == "dataclass" else []), trainer]
    return "\n\n".join([*parts, data_text(plan, trainer)])


def _trainer_head(plan: Plan) -> str:
    third = [f"from torch.optim import {_OPTIMIZERS[plan.task]}"]
    scheduler = {"transformer": None, "classification": "StepLR"}.get(plan.task, "ReduceLROnPlateau")
    third += [f"from torch.optim.lr_scheduler import {scheduler}"] if scheduler else []
    ours = ["from config import ConfigParser", import_line(f"config.{plan.stem}_config", f"{plan.trainer}Config")]
    ours += ["from data.tensor_loader import TensorLoader", "from train.base_trainer import BaseTrainer"]
    ours += ["from data.batches import to_device"] if plan.batch == "dataclass" else []
    ours += ["from train.schedulers import warmup_cosine"] if plan.task == "transformer" else []
    ours += ["from model.ranking_losses import list_net"] if plan.task == "ranking" else []
    for module, names in _model_imports(plan).items():
        (ours if in_project(module) else third).append(import_line(module, *names))
    lines = [title(f"Trains {plan.model}", f": `{command('train')} {plan.trainer}`"), ""]
    lines += ["from dataclasses import dataclass", ""] if plan.batch == "dataclass" else []
    lines += ["import torch"] + ([] if plan.task == "ranking" else ["import torch.nn.functional as F"])
    return "\n".join([*lines, *sorted_imports(third), "", *sorted_imports(ours), ""])


def _model_imports(plan: Plan) -> dict[str, list[str]]:
    """The model's class and those of its config objects, by module."""
    found = {plan.module: [plan.model]}
    for field in plan.fields:
        if field.holder:
            found.setdefault(field.holder.kind.__module__, []).append(field.holder.kind.__name__)
    return found


def in_project(module: str) -> bool:
    """Whether a module is the project's own."""
    top = module.partition(".")[0]
    return in_package(module) or (PROJECT_ROOT / top).is_dir() or (PROJECT_ROOT / f"{top}.py").is_file()


def in_package(module: str) -> bool:
    """Whether a module is in one of the project's packages."""
    return module.partition(".")[0] in _PACKAGES


def _batch_class(plan: Plan) -> str:
    lines = ["@dataclass", f"class {plan.batch_class}:", f'    """A batch of {plan.trainer}."""', ""]
    for name, _, text in (line.partition(": ") for line in plan.sample_lines("B")):
        lines += [f"    {name}: torch.Tensor", f'    """{text}."""']
    return "\n".join(lines) + "\n"


def _trainer_class(plan: Plan) -> str:
    lines = [f"class {plan.trainer}(BaseTrainer):", f'    """Trains {plan.model}, {_KINDS[plan.task]}."""', ""]
    lines += ["    def __init__(self) -> None:", f"        self.config = ConfigParser.get({plan.trainer}Config)"]
    lines += _model_lines(plan)
    lines += ["        train_data, val_data = _data(self.config)"]
    lines += _first_batch(plan) if plan.lazy else []
    rows = ["train_data", "self.config.batch_size", "shuffle=True", "seed=self.config.seed"]
    lines += call("self.train_loader = TensorLoader", rows)
    lines += call("self.val_loader = TensorLoader", ["val_data", "self.config.batch_size"])
    lines += _optimizer_lines(plan.task)
    bar = ["total=len(self.train_loader) * self.config.epochs", f'desc="Training {plan.model}"']
    lines += [*call("self.init_progress_bar", bar), "        super().__init__()", ""]
    return "\n".join([*lines, *_hook_lines(plan)]) + "\n"


def _model_lines(plan: Plan) -> list[str]:
    lines: list[str] = []
    arguments: list[str] = []
    held: dict[Holder, list[str]] = {}
    for field in plan.fields:
        given = f"{field.parameter}=self.config.{field.name}"
        if field.holder is None:
            arguments.append(given)
        else:
            held.setdefault(field.holder, []).append(given)
    for holder, inner in held.items():
        lines += call(f"{holder.parameter} = {holder.kind.__name__}", inner)
        arguments.append(f"{holder.parameter}={holder.parameter}")
    return [*lines, *call(f"self.model = {plan.model}", arguments)]


def _first_batch(plan: Plan) -> list[str]:
    """Lazy layers take their sizes from a first sample, before the optimizer asks for their parameters."""
    last = {"autoencoder": "", "ranking": "[..., :-1]"}.get(plan.task, "[:, :-1]")
    if plan.task == "ranking" and len(plan.fit.inputs[0].shape) == 1:
        size = plan.sizes.output(0, "self.config")
        last = f"[:, :{' ' if '.' in size else ''}-{size}]"
    samples = [f"train_data[:1]{last}"]
    if plan.batch != "tensor":
        read = "train_data.{}[:1]" if plan.batch == "dataclass" else 'train_data["{}"][:1]'
        rows = [(each, read.format(each.name)) for each in plan.fit.inputs]
        samples = [f"{each.name}={row}" if each.keyword else row for each, row in rows]
    note = "        # Lazy layers take their sizes from a sample, before the optimizer asks for the parameters."
    return [note, *call("self.model.eval()", samples)]


def _optimizer_lines(task: str) -> list[str]:
    basic = ["self.model.parameters()", "lr=self.config.learning_rate", "weight_decay=self.config.weight_decay"]
    if task == "classification":
        basic.insert(2, "momentum=0.9")
    lines = call(f"self.optimizer = {_OPTIMIZERS[task]}", basic)
    if task == "transformer":
        lines += ["        steps = -(-len(self.train_loader) // self.config.accumulation_steps) * self.config.epochs"]
        schedule = ["self.optimizer", "warmup_steps=steps // 10", "total_steps=steps"]
        return lines + call("self.scheduler = warmup_cosine", schedule)
    if task == "classification":
        schedule = ["self.optimizer", "step_size=-(-self.config.epochs // 3)", "gamma=self.config.lr_decay_factor"]
        return lines + call("self.scheduler = StepLR", schedule)
    schedule = ["self.optimizer", "mode=self.config.monitor_direction", "factor=self.config.lr_decay_factor"]
    return lines + call("self.scheduler = ReduceLROnPlateau", [*schedule, "patience=self.config.lr_patience"])


# ---- the loss function ---------------------------------------------------------------------------------------------


def _hook_lines(plan: Plan) -> list[str]:
    reads = {each.name: _read(plan, each.name) for each in plan.fit.inputs}
    first = plan.fit.inputs[0].name
    lines = _hook_head(plan)
    if plan.batch == "tensor":
        reads[first], more = _split_batch(plan)
        lines += more
    if plan.batch == "dataclass":
        lines += ["        fields = to_device(batch, self.device)"]
    if plan.batch != "tensor" and plan.task == "autoencoder":
        lines += [f"        wanted = {reads[first]}"]
        reads[first] = "wanted"
    if plan.batch != "tensor" and plan.target:
        lines += [f"        {plan.target} = {_read(plan, plan.target)}"]
    masks = [each for each in plan.fit.inputs if each.mask is not None]
    if masks and plan.batch == "dict":
        lines += [f"        {each.name} = {reads[each.name]}" for each in masks]
        reads |= {each.name: each.name for each in masks}
    arguments = [f"{each.name}={reads[each.name]}" if each.keyword else reads[each.name] for each in plan.fit.inputs]
    called = call("output = self.model", arguments)
    called[-1] += "[0]" if plan.fit.in_tuple else ""
    if plan.task == "transformer" and plan.every_step:
        lines += [
            "        # The model must not look ahead (a causal mask): the targets are its inputs, one step later."
        ]
    return [*lines, *called, *_loss_lines(plan, reads)]


def _hook_head(plan: Plan) -> list[str]:
    about = plan.sample_lines("B")
    if plan.batch == "tensor":
        kind, name, about = "torch.Tensor", "compute_loss", [f"            batch: {about[0]}."]
    else:
        kind, name = plan.batch_kind, "_forward_batch"
        about = ["            batch: with", *(f"                {line}" for line in about)]
    lines = [f"    def {name}(self, batch: {kind}) -> torch.Tensor:", '        """Return the mean loss of a batch.', ""]
    return [*lines, "        Args:", *about, '        """']


def _read(plan: Plan, name: str) -> str:
    return f"fields.{name}" if plan.batch == "dataclass" else f'batch["{name}"].to(self.device)'


def _split_batch(plan: Plan) -> tuple[str, list[str]]:
    """What a batch that is one tensor gives the model, and the lines that take it apart."""
    lines = ["        batch = batch.to(self.device)"]
    if plan.task == "autoencoder":
        return "batch", lines
    if plan.task == "transformer":
        parts = f"batch[:, :-1], batch[:, {'1:' if plan.every_step else '-1'}]{plan.cut('self.config')}"
        return "inputs", [*lines, f"        inputs, targets = {parts}"]
    if plan.task == "classification":
        return "inputs", [*lines, f"        inputs, {plan.target} = batch[:, :-1], batch[:, -1].long()"]
    if len(plan.fit.inputs[0].shape) == 2:
        return "inputs", [*lines, f"        inputs, {plan.target} = batch[..., :-1], batch[..., -1]"]
    lines += [f"        items = {plan.sizes.output(0, 'self.config')}"]
    return "inputs", [*lines, f"        inputs, {plan.target} = batch[:, :-items], batch[:, -items:]"]


def _loss_lines(plan: Plan, reads: dict[str, str]) -> list[str]:
    target = plan.target or {"autoencoder": "wanted", "transformer": "targets"}[plan.task]
    target = "batch" if plan.task == "autoencoder" and plan.batch == "tensor" else target
    if plan.task == "classification":
        accuracy = f"(output.argmax(1) == {target}).float().mean()"
        metrics = f'        self._collect_batch_metrics({{"accuracy": {accuracy}}})'
        return [metrics, f"        return F.cross_entropy(output, {target})"]
    if plan.task == "ranking":
        return _ranking_loss(plan, target, reads)
    lines = []
    if any(each.mask is not None for each in plan.fit.inputs):
        lines = ["        # Where your samples have padding, take the mean over the rest, and say over how much:"]
        lines += ["        # self._set_loss_count(...)."]
    if plan.task == "autoencoder" or plan.fit.inputs[0].tokens is None:
        return [*lines, f"        return F.mse_loss(output, {target})"]
    if plan.every_step:
        return [*lines, f"        return F.cross_entropy(output.flatten(0, 1), {target}.flatten())"]
    return [*lines, f"        return F.cross_entropy(output, {target})"]


def _ranking_loss(plan: Plan, target: str, reads: dict[str, str]) -> list[str]:
    items = plan.sizes.names_of_output(0)
    mask = next((each for place, each in enumerate(plan.fit.inputs)
                 if each.mask is not None and plan.sizes.names[place, 0] == items), None)  # fmt: skip
    lines, shown, wanted = [f"        there = torch.ones_like({target}, dtype=torch.bool)"], "output", target
    if mask is not None:
        name = reads[mask.name]
        there = f"~{name}" if mask.mask is True else name if mask.mask is False else f"{name} > 0"
        lines = [f"        there = {there}"]
        shown, wanted = (f"{each}.masked_fill(~there, -torch.inf)" for each in (shown, wanted))
    lines += [f"        hits = {shown}.argmax(1) == {wanted}.argmax(1)"]
    lines += ['        self._collect_batch_metrics({"top1": hits.float().mean()})']
    return [*lines, f"        return list_net(output, {target}, there)"]


# ---- test ----------------------------------------------------------------------------------------------------------


def test_text(plan: Plan) -> str:
    """Return the file of the trainer's test."""
    words: list[Any] = [f'"{plan.trainer}"', '"epochs=1"', '"plot_at_end=off"']
    head = [f'"""{plan.trainer} trains, through the command line."""', "", "import json"]
    if plan.path_entry:  # the test's copy of the project has its packages alone
        head += ["from pathlib import Path", "", "ROOT = Path(__file__).resolve().parents[2]"]
        words += ["PYTHONPATH=str(ROOT)"]
    name = plan.stem
    lines = [*head, "", "", f"def test_{name}_trains_an_epoch(users_project):"]
    lines += call("done = users_project.run", words, indent=4)
    lines += ["    assert done.returncode == 0, done.stderr"]
    lines += [f'    metrics = users_project.runs("{plan.trainer.removesuffix("Trainer")}")[-1] / "metrics.json"']
    lines += ['    history = json.loads(metrics.read_text())["history"]']
    lines += ['    assert len(history["train_loss"]) == len(history["val_loss"]) == 1', ""]
    return "\n".join(lines)
