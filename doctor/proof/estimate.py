"""What a proof will take, told before it is begun, and whether that is agreed to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from doctor.proof.outcome import Budget
from doctor.remedy.requirements import named

MODES = ("never", "ask", "always")
# About how many megabytes a wheel has, where that is not about one.
_MEGABYTES = {
    "torch": 200, "torchvision": 8, "torchaudio": 5, "triton": 190, "tensorflow": 600, "jaxlib": 90, "vllm": 400,
    "xformers": 110, "bitsandbytes": 70, "pyarrow": 45, "scipy": 38, "numpy": 18, "pandas": 13, "scikit-learn": 11,
    "transformers": 11, "gradio": 45, "sympy": 6, "opencv-python": 60, "opencv-python-headless": 50, "llvmlite": 45,
    "grpcio": 6, "tokenizers": 3, "matplotlib": 9, "duckdb": 20, "onnxruntime": 17, "tensorboard": 6,
    "pillow": 7, "lxml": 5, "cryptography": 4, "hf-xet": 4, "polars": 40, "flash-attn": 200, "sentencepiece": 2,
    "diffusers": 4, "av": 35, "ray": 70, "networkx": 2, "aiohttp": 2, "pydantic-core": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """What a proof will take at most, about.

    Args:
        packages: distributions that will be downloaded.
        download: bytes of them.
        seconds: time, by the number of what is installed and tried.
    """

    packages: int
    download: int
    seconds: float

    def __str__(self) -> str:
        size = f"about {max(1, round(self.download / 1e6))} MB" if self.packages else "nothing"
        return f"{size} to download, about {round(self.seconds)} s"


def estimated(pins: Sequence[str], missing: int | None, changes: int) -> Estimate:
    """Return what a proof will take at most.

    Args:
        pins: what will be installed.
        missing: how many of them are not in the installer's cache; None where it can't tell: all.
        changes: how many changes may be tried.
    """
    sizes = sorted((_MEGABYTES.get(name, 1) for name in named(pins)), reverse=True)
    count = len(sizes) if missing is None else min(missing, len(sizes))
    download = sum(sizes[:count]) * 1_000_000  # not told which: the largest
    run = 8 if "torch" in named(pins) else 3
    seconds = 3 + len(sizes) * 0.05 + download / 10e6 + (2 + min(changes, 3)) * run
    return Estimate(count, download, seconds)


def refusal(mode: str, estimate: Estimate, budget: Budget, ask: Callable[[str], bool] | None) -> str | None:
    """Return why a proof is not begun, None where it is.

    Args:
        mode: one of MODES.
        estimate: what it will take.
        budget: what it may take.
        ask: asks a person a question that is answered by yes or no; None where there is nobody to ask.
    """
    if estimate.download > budget.download:
        return f"It would take {estimate}; {round(budget.download / 1e6)} MB are allowed."
    if mode == "never":
        return f"Proofs are switched off; --proof always tries it: {estimate}."
    if mode == "ask":
        if ask is None:
            return f"Nobody is there to be asked; --proof always tries it: {estimate}."
        if not ask(f"Try it in a scratch environment ({estimate}; yours is not touched)?"):
            return "It was declined."
    return None
