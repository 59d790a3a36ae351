"""The words of `--profile`: a profile's tables, and the rules that say what bounds a run."""

from dataclasses import dataclass, field

from constants.counting import counted
from train.context import RunContext
from train.model_summary import readable_bytes

_NAMES = {
    "data": "data (loading, moving)",
    "forward": "forward, with the loss",
    "backward": "backward",
    "update": "clip and optimizer",
    "other": "the loop itself",
}
_SHOWN = 10  # operators
_LARGE_PART = 0.4  # of a step: a phase that bounds it
_WELL_USED = 0.5  # of what a large matrix product reaches
_SMALL_OPERATOR = 20.0  # microseconds; calling an operator forward, backward and from Python costs about 5 to 10
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "attention", "dnn", "linear")


@dataclass
class Profile:
    """What was measured. Times are milliseconds and means over steps.

    Attributes:
        phases: time of `data`, `forward`, `backward`, `update` (clip and optimizer) and `other` (the loop itself); they
            add up to the step's.
        steps: number of optimizer steps that were timed.
        epoch_start: time that the first batch of an epoch takes more than others; it is in `data`, shared by the steps.
        steps_per_epoch: optimizer steps of an epoch, None where the loader has no length.
        samples: mean number of samples in a step's batches.
        operators: calls of torch operators a step.
        flops: floating-point operations a step (matrix products, convolutions, attention), forward and backward.
        peak_flops: floating-point operations a second of a large matrix product on this device.
        matmul_size: rows and columns of the matrix product behind `peak_flops`.
        dtype: dtype of the matrix product behind `peak_flops`, that of the run.
        memory: peak bytes: on CUDA of the device's tensors, else of the whole process.
        top: operators by self time: name, milliseconds and calls a step, share of all operators' self time.
        busy: share of the step that the device's kernels take; None on the CPU.
    """

    phases: dict[str, float]
    steps: int
    epoch_start: float
    steps_per_epoch: int | None
    samples: float
    operators: int = 0
    flops: float = 0.0
    peak_flops: float = 0.0
    matmul_size: int = 0
    dtype: str = "float32"
    memory: int = 0
    top: list[tuple[str, float, float, float]] = field(default_factory=list)
    busy: float | None = None

    @property
    def step(self) -> float:
        """Milliseconds of a step."""
        return sum(self.phases.values())


def report_lines(run: RunContext, profile: Profile) -> list[str]:
    """Describe a profile.

    Args:
        run: run that was profiled.
        profile: measured times and counts.

    Returns:
        Lines for a terminal.
    """
    lines = [
        f"where a step's time goes (step = eager, mean of {counted(profile.steps, 'step')}):",
        f"  {'':<24}{'ms':>10}{'%':>8}",
    ]
    for phase, spent in profile.phases.items():
        lines.append(f"  {_NAMES[phase]:<24}{spent:>10.3f}{100 * spent / profile.step:>8.1f}")
    lines.append(f"  {'step':<24}{profile.step:>10.3f}{100:>8.1f}   ({1000 / profile.step:,.1f} steps a second)")
    if profile.steps_per_epoch and profile.epoch_start >= 0.01:
        lines.append(
            f"starting an epoch takes {profile.epoch_start:.3g} ms; it is in data, "
            f"shared by the epoch's {counted(profile.steps_per_epoch, 'step')}"
        )
    what = "tensors on the device" if profile.busy is not None else "the whole process, with torch itself"
    lines.append(f"peak memory: {readable_bytes(profile.memory)} ({what})")
    lines += [_rate(profile), f"operators with the most time of their own ({profile.operators:,} calls a step in all):"]
    lines.append(f"  {'':<44}{'ms a step':>10}{'%':>8}{'calls a step':>14}")
    for name, spent, calls, share in profile.top[:_SHOWN]:
        lines.append(f"  {_short(name):<44}{spent:>10.3f}{100 * share:>8.1f}{calls:>14.4g}")
    return [*lines, verdict(run, profile)]


def _rate(profile: Profile) -> str:
    size = f"{profile.matmul_size}x{profile.matmul_size}"
    peak = f"{_flops(profile.peak_flops)}/s that a matrix product of {size} in {profile.dtype} reaches here"
    if not profile.flops:
        return f"arithmetic: no matrix product or convolution in a step; {peak.replace(' that', ' is what', 1)}"
    rate, share = 1000 * profile.flops / profile.step, 100 * utilisation(profile)
    return f"arithmetic: {_flops(profile.flops)} a step, {_flops(rate)}/s: {share:.2g} % of the {peak}"


def _flops(count: float) -> str:
    for unit in ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"):
        if count < 1000 or unit == "TFLOP":
            return f"{count:.3g} {unit}" if count < 1000 else f"{count:,.0f} {unit}"
        count /= 1000
    raise AssertionError("not reached")


def _short(name: str) -> str:
    name = name.removeprefix("autograd::engine::evaluate_function: ")
    return name if len(name) <= 42 else f"{name[:39]}..."


def utilisation(profile: Profile) -> float:
    """Return the share of the device's matrix-product speed that the step reaches."""
    return 1000 * profile.flops / profile.step / profile.peak_flops


def verdict(run: RunContext, profile: Profile) -> str:
    """Say what bounds a run and what to try.

    The first of these rules that holds: data takes 40 % of the step; half of the matrix-product speed is reached;
    operators take less than 20 us on average (on CUDA: kernels less than half of the step); clip and optimizer take
    40 % of the step; matrix products take half of the operators' time; else it is the other operators.

    Args:
        run: run that was profiled.
        profile: measured times and counts.
    """
    share = {phase: spent / profile.step for phase, spent in profile.phases.items()}
    used = f"{100 * utilisation(profile):.2g} % of the speed of a large product"
    each = 1000 * sum(profile.phases[phase] for phase in ("forward", "backward", "update")) / max(1, profile.operators)
    products = sum(part for name, _, _, part in profile.top if any(word in name for word in _PRODUCTS))
    if share["data"] >= _LARGE_PART:
        return f"bound by data ({100 * share['data']:.0f} % of the step): {_data_advice(run, profile)}"
    if utilisation(profile) >= _WELL_USED:
        return f"bound by matrix products, at {used}: {_try(run, 'precision', 'a smaller model')}"
    if (profile.busy < 0.5) if profile.busy is not None else (each < _SMALL_OPERATOR):
        busy = "" if profile.busy is None else f", the device works {100 * profile.busy:.0f} % of the time"
        return (
            f"bound by the loop around small operators: {profile.operators:,} of {each:.1f} us a step{busy}; "
            f"{_try(run, 'step', 'a larger batch_size')}"
        )
    if share["update"] >= _LARGE_PART:
        return (
            f"bound by the memory traffic of clip and optimizer ({100 * share['update']:.0f} % of the step): "
            f"{_try(run, 'a larger batch_size', 'accumulation_steps', 'gradient_clip_value = 0')}"
        )
    if products >= 0.5:
        return (
            f"bound by matrix products too small for the device ({100 * products:.0f} % of the operators' time, at "
            f"{used}): {_try(run, 'a larger batch_size', 'precision', 'step')}"
        )
    others = [row for row in profile.top if not any(word in row[0] for word in _PRODUCTS)][:2]
    named = " and ".join(f"{_short(name)} ({100 * part:.0f} %)" for name, _, _, part in others)
    dropout = ["less dropout, whose random numbers these are"] if others and "bernoulli" in others[0][0] else []
    return (
        f"bound by operators that are no matrix products, most of all {named}: "
        f"{_try(run, *dropout, 'step', 'precision')}"
    )


def _data_advice(run: RunContext, profile: Profile) -> str:
    loader = run.train_loader
    if profile.steps_per_epoch and profile.epoch_start / profile.steps_per_epoch > profile.phases["data"] / 2:
        return (
            f"most of it is the start of an epoch, where {type(loader).__name__} shuffles, makes the epoch's data or "
            "starts its workers; do that work once, or for fewer epochs (persistent_workers of a DataLoader)"
        )
    if not hasattr(loader, "num_workers"):
        return f"{type(loader).__name__} is slow; do its work once for all epochs, or for a whole batch at a time"
    more = "a larger num_workers" if loader.num_workers else "num_workers = 2"
    return f"try {more}, or a TensorLoader if the data fits in memory"


def _try(run: RunContext, *ways: str) -> str:
    """Name what to try; a setting that this trainer lacks, or that brings nothing on its device, is left out."""
    keys = {"step": "step = epoch (or compiled)", "precision": "precision = bf16"}
    useless = [key for key in keys if not hasattr(run.config, key)]
    if run.device.type == "cpu":
        useless.append("precision")  # most CPUs have no unit for bf16 and are slower with it
    known = [keys.get(way, way) for way in ways if way not in useless]
    return f"try {', or '.join(known)}" if known else "a faster form of them would have to be written"
