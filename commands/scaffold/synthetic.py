"""The text of `_data()`: synthetic samples that can be learnt from, and what their owner puts in their place."""

import re
import textwrap

from commands.scaffold.layout import WIDTH, call
from commands.scaffold.plan import Plan

_TITLE = "# ---- REPLACE THIS: the one place that makes data; what is here is synthetic ----"
_COUNTS = "_SAMPLES, _TRAINING = 256, 192  # synthetic samples in all, and for training"


def data_text(plan: Plan, trainer: str) -> str:
    """Return the constants and the function that make the data.

    Args:
        plan: plan of the trainer.
        trainer: text of the trainer's class, which may need the constants too.
    """
    kind = plan.batch_kind
    head = [f"def _data(config: {plan.trainer}Config) -> tuple[{kind}, {kind}]:"]
    if len(head[0]) > WIDTH:
        head = ["def _data(", f"    config: {plan.trainer}Config,", f") -> tuple[{kind}, {kind}]:"]
    body = ["    generator = torch.Generator().manual_seed(0)"]
    body += _transformer_data(plan) if plan.task == "transformer" else _plain_data(plan)
    if plan.batch == "tensor":
        body += ["    return samples[:_TRAINING], samples[_TRAINING:]"]
    else:
        for name, cut in (("train_data", ":_TRAINING"), ("val_data", "_TRAINING:")):
            rows = f"{{name: rows[{cut}] for name, rows in samples.items()}}"
            body += [f"    {name} = {rows}"] if plan.batch == "dict" else call(f"{name} = {kind}", [f"**{rows}"], 4)
        body += ["    return train_data, val_data"]
    used = "\n".join([*body, trainer])
    sizes = [f"{name} = {size}" for name, size in plan.sizes.constants.items() if re.search(rf"\b{name}\b", used)]
    return "\n".join([_TITLE, "", _COUNTS, *sizes, "", "", *head, *_docstring(plan), *body, ""])


def _docstring(plan: Plan) -> list[str]:
    kinds = {"tensor": "two tensors", "dict": "two dicts of tensors", "dataclass": "two dataclasses of tensors"}
    settings = sorted({name for name in plan.sizes.names.values() if name not in plan.sizes.constants})
    each = {"tensor": "tensor", "dict": "dict"}.get(plan.batch, plan.batch_class)
    lines = [f'"""Return the samples for training and those for validation: {kinds[plan.batch]}, one row a sample.', ""]
    lines += ["They are synthetic. Yours go here, read from their files (a path becomes a key of the config), as"]
    lines += [f"    {part}" for part in plan.sample_lines("N")]
    if settings:
        text = f"Of these sizes, keys of the config are: {', '.join(settings)}."
        lines += textwrap.wrap(text, WIDTH - 4, break_long_words=False)
    text = (
        "Samples that don't fit into memory, or are changed each time they are read, come from a "
        f"`torch.utils.data.Dataset` whose `dataset[i]` is such a {each} of one sample, without N. Then `__init__` has "
        "`make_loader` of `data.loaders` in place of TensorLoader, and this function goes."
    )
    lines += ["", *textwrap.wrap(text, WIDTH - 4), '"""']
    return [f"    {line}" if line else "" for line in lines]


def _plain_data(plan: Plan) -> list[str]:
    groups = plan.sizes.output(0) if plan.task == "classification" else "4"
    lines = [] if plan.task == "ranking" else [f"    kinds = torch.arange(_SAMPLES) % {groups}"]
    if plan.batch != "tensor":
        start = f'{{"{plan.target}": kinds}}' if plan.task == "classification" else "{}"
        lines += [f"    samples: dict[str, torch.Tensor] = {start}"]
    for place, each in enumerate(plan.fit.inputs):
        lines += _input_lines(plan, place, "samples" if plan.batch == "tensor" else f'samples["{each.name}"]', groups)
    if plan.task == "ranking":
        lines += _truth(plan)
    if plan.packed and plan.task == "classification":
        lines += ["    samples = torch.cat([samples, kinds[:, None]], dim=1)"]
    return lines


def _input_lines(plan: Plan, place: int, name: str, groups: str) -> list[str]:
    each = plan.fit.inputs[place]
    sizes = [plan.sizes.of(place, axis) for axis in range(len(each.shape))]
    if each.mask is not None:
        full = "ones" if not each.mask else "zeros"
        made = call(f"{name} = torch.{full}", ["_SAMPLES", *sizes, f"dtype={each.dtype}"], 4)
        return [*made[:-1], f"{made[-1]}  # {each.mask} is padding: there is none"]
    shape, lines = "", []
    if sizes:
        shape = ", *shape"
        lines = call("shape = ", sizes if len(sizes) > 1 else [f"{sizes[0]},"], 4)
    if each.tokens is not None:
        count, whole = plan.sizes.tokens(place), f"(_SAMPLES{shape or ','})"
        if plan.task == "classification" and len(each.shape) == 1:  # low numbers in one class, high ones in another
            lines += [f"    near = torch.randint(3, {whole}, generator=generator)"]
            return [*lines, f"    {name} = (3 * kinds[:, None] + near) % {count}"]
        return [*lines, f"    {name} = torch.randint({count}, {whole}, generator=generator)"]
    if plan.task in ("ranking", "transformer"):
        return [*lines, f"    {name} = torch.randn(_SAMPLES{shape}, generator=generator)"]
    return [
        *lines,
        f"    {name} = torch.randn({groups}{shape}, generator=generator)[kinds]",
        f"    {name} += 0.5 * torch.randn(_SAMPLES{shape}, generator=generator)",
    ]


def _truth(plan: Plan) -> list[str]:
    """A truth that can be learnt: the mean of what is given of each item."""
    inputs, count = plan.fit.inputs, plan.sizes.output(0)
    floats = [place for place, each in enumerate(inputs) if each.tokens is None and each.mask is None]
    lists = [place for place in plan.sizes.inputs_of(0) if place in floats]
    vectors = [place for place in floats if len(inputs[place].shape) == 1]
    rows = ["samples" if plan.batch == "tensor" else f'samples["{each.name}"]' for each in inputs]
    if lists:  # the last, as a query or a dataset is named before the items that are ranked for it
        place, dims = lists[-1], len(inputs[lists[-1]].shape)
        made = f"{rows[place]}{['', '.mean(2)', '.flatten(2).mean(2)'][min(dims - 1, 2)]}"
    elif vectors:
        made = f"{rows[vectors[0]]} @ torch.randn({plan.sizes.of(vectors[0], 0)}, {count}, generator=generator)"
    else:
        made = f"torch.randn(_SAMPLES, {count}, generator=generator)"
    if plan.batch != "tensor":
        return [f'    samples["{plan.target}"] = {made}']
    beside = "truth[..., None]" if len(plan.fit.inputs[0].shape) == 2 else "truth"
    return [f"    truth = {made}", f"    samples = torch.cat([samples, {beside}], dim=-1)"]


def _transformer_data(plan: Plan) -> list[str]:
    first, length = plan.fit.inputs[0], plan.sizes.of(0, 0)
    name = "samples" if plan.batch == "tensor" else "series"
    if first.tokens is None:
        lines = call("phases = 6.28 * torch.rand", ["_SAMPLES", "1", plan.sizes.of(0, 1), "generator=generator"], 4)
        lines += [f"    {name} = torch.sin(0.5 * torch.arange({length} + 1)[None, :, None] + phases)"]
    else:
        count = plan.sizes.tokens(0)
        lines = [f"    starts = torch.randint({count}, (_SAMPLES, 1), generator=generator)"]
        lines += [f"    {name} = (starts + torch.arange({length} + 1)) % {count}"]
    if plan.batch == "tensor":
        return lines
    last = f"series[:, {'1:' if plan.every_step else '-1'}]{plan.cut('config')}"
    lines += [f'    samples = {{"{first.name}": series[:, :-1], "{plan.target}": {last}}}']
    for place, each in list(enumerate(plan.fit.inputs))[1:]:
        lines += _input_lines(plan, place, f'samples["{each.name}"]', "4")
    return lines
