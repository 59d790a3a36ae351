"""Known-good sets of versions, read from sets.yaml, and whether one fits a wish."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml
from packaging.specifiers import SpecifierSet

from doctor.planning.wish import Wish

_FILE = Path(__file__).parent / "sets.yaml"
_SYSTEMS = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}
_GOALS = {"finetune": "fine-tuning", "reinforce": "reinforcement learning (GRPO, PPO)", "serve": "serving",
          "generate": "generating data"}  # fmt: skip
_KINDS = {"nvidia": "an NVIDIA GPU", "mac": "a Mac", "cpu": "a CPU"}


@dataclass(frozen=True)
class Confirmed:
    """How a set was confirmed: how, by what, on which day, and what ran it ("nothing" where it was only resolved)."""

    how: str
    by: str
    date: str
    ran: str

    def __str__(self) -> str:
        ran = "not run on this hardware" if self.ran == "nothing" else f"ran on {self.ran}"
        return f"{self.how} by {self.by} on {self.date}; {ran}"


@dataclass(frozen=True)
class KnownSet:
    """A set of versions; the fields are those of sets.yaml."""

    id: str
    goals: tuple[str, ...]
    kinds: tuple[str, ...]
    systems: tuple[str, ...]
    python: str
    versions: dict[str, str]
    confirmed: Confirmed
    capability: tuple[int, int] | None = None
    below: tuple[int, int] | None = None
    places: tuple[str, ...] = ()
    several: bool = False
    methods: tuple[str, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    index: str | None = None
    says: str = ""
    pins: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "pins", tuple(f"{name}=={version}" for name, version in self.versions.items()))

    @property
    def python_version(self) -> str:
        """The Python to take: 3.12 where it is allowed, else the newest that is."""
        allowed = SpecifierSet(self.python)
        return next(one for one in ("3.12", "3.13", "3.11", "3.10", "3.14") if allowed.contains(one))

    def without_torch(self) -> tuple[str, ...]:
        """Return the pins but those of what an image such as Colab's brings with its driver."""
        return tuple(pin for pin in self.pins if pin.partition("==")[0] not in
                     ("torch", "torchvision", "torchaudio", "triton", "numpy"))  # fmt: skip

    def against(self, wish: Wish) -> list[str]:
        """Return why the set doesn't fit a wish, a sentence each; empty where it does."""
        reasons = []
        hardware = wish.hardware
        missing = [
            name for name in wish.libraries if name not in self.versions and name not in ("triton", "flash-attn")
        ]
        if missing:
            reasons.append(f"it has no {' and no '.join(missing)}")
        if wish.goal and wish.goal not in self.goals:
            able = " or ".join(_GOALS.get(goal, goal) for goal in self.goals)
            reasons.append(f"it is for {able}, not for {_GOALS.get(wish.goal, wish.goal)}")
        if hardware.kind and hardware.kind not in self.kinds:
            reasons.append(f"it needs {' or '.join(_KINDS[kind] for kind in self.kinds)}, not {hardware.name}")
        if wish.system not in self.systems and not (wish.system == "linux" and not hardware.kind):
            reasons.append(
                f"it needs {' or '.join(_SYSTEMS[one] for one in self.systems)}, not {_SYSTEMS[wish.system]}"
            )
        if hardware.kind == "nvidia" and hardware.capability:
            if self.capability and hardware.capability < self.capability:
                reasons.append(f"it needs compute capability {_dotted(self.capability)}, "
                               f"and {hardware.name} has {_dotted(hardware.capability)}")  # fmt: skip
            if self.below and hardware.capability >= self.below:
                reasons.append(f"it is for older processors than {hardware.name}")
        if wish.method and self.methods and wish.method not in self.methods:
            reasons.append(f"it does not do {wish.method}")
        return reasons


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


@cache
def known_sets() -> tuple[KnownSet, ...]:
    """Return the sets that are shipped."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return tuple(_from(entry) for entry in yaml.load(_FILE.read_text(encoding="utf-8"), loader))


def _from(entry: dict[str, object]) -> KnownSet:
    made = dict(entry)
    for key in ("goals", "kinds", "systems", "places", "methods"):
        listed = made.get(key) or ()
        made[key] = tuple(str(one) for one in listed) if isinstance(listed, list | tuple) else ()
    for key in ("capability", "below"):
        if key in made:
            high, low = str(made[key]).split(".")
            made[key] = (int(high), int(low))
    confirmed, versions = made["confirmed"], made["versions"]
    assert isinstance(confirmed, dict) and isinstance(versions, dict)
    made["confirmed"] = Confirmed(**{key: str(value) for key, value in confirmed.items()})
    made["versions"] = {str(name): str(version) for name, version in versions.items()}
    return KnownSet(**made)  # type: ignore[arg-type]
