"""What an installed torch was built for, from the text of its version file: torch is not imported."""

import os
import re
from dataclasses import dataclass

from doctor.environment.facts import Environment


@dataclass(frozen=True)
class TorchBuild:
    """A build of torch.

    Args:
        version: such as "2.6.0+cu124".
        cuda: CUDA version that it was built with, such as "12.4"; None for a CPU, ROCm or Mac build, or if not known.
        hip: ROCm version that it was built with; None where none.
        cpu_only: whether it has neither; None where it can't be told.
        file: the file that tells it; empty where only the version's local part does.
    """

    version: str
    cuda: str | None = None
    hip: str | None = None
    cpu_only: bool | None = None
    file: str = ""

    @property
    def told(self) -> str:
        """What tells of the build, as a line of evidence."""
        made = f"CUDA {self.cuda}" if self.cuda else "no CUDA"
        return f"{self.file or 'its version'} says torch {self.version}, built with {made}"


def torch_build(environment: Environment) -> TorchBuild | None:
    """Return what torch of an environment was built for: from torch/version.py, else from its version's local part.

    Args:
        environment: an environment that was read from files, or that a text declares.

    Returns:
        The build, None where torch's version is not known.
    """
    found = environment.find("torch")
    if found and found.site:
        file = os.path.join(found.site, "torch", "version.py")
        try:
            with open(file, encoding="utf-8", errors="replace") as stream:
                text = stream.read()
        except OSError:
            text = ""
        if "__version__" in text:
            version = _value(text, "__version__") or found.version
            cuda, hip = _value(text, "cuda"), _value(text, "hip")
            return TorchBuild(version, cuda, hip, cuda is None and hip is None, file)
    version = str(environment.version("torch") or "")
    if not version:
        return None
    local = version.partition("+")[2]
    numbers = re.fullmatch(r"cu(\d+)(\d)", local)
    if numbers:
        return TorchBuild(version, f"{numbers[1]}.{numbers[2]}", None, False)
    if local.startswith("rocm"):
        return TorchBuild(version, None, local.removeprefix("rocm"), False)
    return TorchBuild(version, cpu_only=True if local == "cpu" else None)


def _value(text: str, name: str) -> str | None:
    match = re.search(rf"^{name}\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return match[1] if match else None
