"""From a wish to a plan: the known-good set that fits, what to know, what the memory holds; or what to change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from doctor.planning.footguns import Footgun, footguns
from doctor.planning.known_sets import KnownSet, known_sets
from doctor.planning.needs import Estimate, largest, serving, training
from doctor.planning.wish import Wish

_ROOM = 0.95  # share of the memory that is taken as usable
_METHODS = {"full": "full fine-tuning", "lora": "LoRA in 16 bit", "qlora": "QLoRA in 4 bit"}


@dataclass(frozen=True)
class Plan:
    """What to do for a wish.

    Args:
        wish: what was understood.
        chosen: the set; None where nothing fits.
        method: of fine-tuning: "qlora", "lora" or "full"; of serving: "bf16", "8bit" or "4bit"; "" where nothing tells.
        estimates: what it takes, by method, the chosen first.
        notes: what follows from memory and goal, a sentence each.
        footguns: what goes wrong here.
        reasons: why no set fits, a sentence each; empty where one does.
        others: further sets that fit.
    """

    wish: Wish
    chosen: KnownSet | None
    method: str = ""
    estimates: tuple[Estimate, ...] = ()
    notes: tuple[str, ...] = ()
    footguns: tuple[Footgun, ...] = ()
    reasons: tuple[str, ...] = ()
    others: tuple[KnownSet, ...] = ()


def make_plan(wish: Wish, driver: str | None = None, sets: Sequence[KnownSet] | None = None) -> Plan:
    """Choose a set for a wish.

    Args:
        wish: what is wanted.
        driver: version of the NVIDIA driver, where it is known.
        sets: sets to choose from; None for those that are shipped.
    """
    found = tuple(footguns(wish))
    stopping = tuple(one.text for one in found if one.stops)
    method, estimates, notes, too_big = _memory(wish)
    if not wish.goal and not wish.libraries:
        notes = ("What for was not said, fine-tuning or serving: this is for fine-tuning.", *notes)
    fitting = [one for one in sets or known_sets() if not one.against(wish)]
    fitting = [one for one in fitting if not (driver and one.driver and _older(driver, one.driver))]
    if stopping or too_big or not fitting:
        reasons = (*stopping, *too_big) or tuple(_nearest_reasons(wish, driver, sets or known_sets()))
        return Plan(wish, None, method, estimates, notes, found, reasons)
    ranked = sorted(fitting, key=lambda one: _rank(one, wish, driver))
    return Plan(wish, ranked[0], method, estimates, notes, found, others=tuple(ranked[1:4]))


def _rank(one: KnownSet, wish: Wish, driver: str | None) -> tuple[bool, bool, bool, int, bool]:
    """Return how well a fitting set fits, the best first: unsloth for one GPU, vllm for serving."""
    wants = set(wish.libraries)
    preferred = {"finetune": "unsloth", "reinforce": "unsloth", "serve": "vllm", "generate": "bespokelabs-curator"}.get(
        wish.goal
    )
    single = wish.hardware.count == 1
    useless = wish.hardware.count > 1 and not one.several
    prefers = preferred in one.versions and (single or wish.goal == "serve")
    main = {"unsloth", "axolotl", "llamafactory", "deepspeed", "vllm", "sglang"} & one.versions.keys()
    # The image of a notebook has a driver that nobody chooses; an older CUDA runs on more of them.
    modest = bool(one.cuda) and str(one.cuda).startswith("12.")
    wanted_modest = wish.place in ("colab", "kaggle") and driver is None
    strange = bool(wants and main) and not wants & main  # made around a library that nobody asked for
    return useless, strange, not prefers and not wants & main, len(main - wants), modest != wanted_modest


def _memory(wish: Wish) -> tuple[str, tuple[Estimate, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the method that fits the memory, what each takes, notes, and why nothing fits."""
    memory = wish.hardware.memory * wish.hardware.count if wish.hardware.memory else None
    estimate: Callable[[float, str], Estimate]
    if wish.goal in ("finetune", "reinforce"):
        order, estimate = ["full", "lora", "qlora"], training
        if wish.hardware.kind in ("mac", "cpu"):
            order = ["full", "lora"]
    elif wish.goal == "serve":
        order, estimate = ["bf16", "8bit", "4bit"], serving
    else:
        return "", (), (), ()
    if wish.billions is None:
        notes = []
        if memory and wish.goal != "reinforce":
            sizes = ", ".join(f"{_named(one)} {largest(memory * _ROOM, one):.2g}B" for one in order)
            notes.append(f"The largest usual model that {memory:g} GB hold, by estimate: {sizes}.")
        return wish.method if wish.goal != "serve" else "", (), tuple(notes), ()
    wanted = [wish.method] if wish.method in order else order
    estimates = tuple(estimate(wish.billions, one) for one in wanted)
    if memory is None:
        return wanted[-1] if wish.method else "", estimates, ("How much memory there is was not said.",), ()
    for one, needed in zip(wanted, estimates, strict=True):
        if needed.total <= memory * _ROOM:
            note = f"{wish.billions:g}B by {_named(one)} fits into {memory:g} GB, by estimate."
            if wish.goal == "serve" and one == "4bit":
                note += " Take a checkpoint in AWQ or GPTQ: vllm serves those fast."
            return one, tuple(sorted(estimates, key=lambda each: each is not needed)), (note,), ()
    least = estimates[-1]
    others = [one for one in order if one not in wanted]
    smaller = largest(memory * _ROOM, order[-1])
    hint = f"a GPU with more memory, or {f'a model up to {smaller:.2g}B' if smaller else 'a smaller model'}"
    for one in others:
        if estimate(wish.billions, one).total <= memory * _ROOM:
            hint = f"{_named(one)}, which takes about {estimate(wish.billions, one).total:.0f} GB; or {hint}"
    return "", estimates, (), (f"{least} do not fit into {memory:g} GB of {wish.hardware.name}. What does: {hint}.",)


def _named(method: str) -> str:
    return _METHODS.get(method, {"bf16": "16 bit", "8bit": "8 bit", "4bit": "4 bit"}.get(method, method))


def _nearest_reasons(wish: Wish, driver: str | None, sets: Sequence[KnownSet]) -> list[str]:
    """Return why the sets that come nearest don't fit."""
    judged = []
    for one in sets:
        reasons = one.against(wish)
        if driver and one.driver and _older(driver, one.driver):
            reasons.append(f"it needs driver {one.driver}, and {driver} is there")
        judged.append((len(reasons), one.id, reasons))
    judged.sort(key=lambda each: each[0])
    least = judged[0][0]
    return [f"{name}: {'; '.join(reasons)}." for count, name, reasons in judged if count == least][:4]


def _older(version: str, than: str) -> bool:
    return tuple(map(int, version.split(".")[:2])) < tuple(map(int, than.split(".")[:2]))
