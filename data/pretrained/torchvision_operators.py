"""Lets torchvision be imported where its compiled part doesn't fit torch: PyPI's wheel beside a CPU build of torch.

That wheel is built for CUDA. Beside the CPU build of torch its operators can't be loaded, and `import torchvision`
fails with `operator torchvision::nms does not exist`; so does whatever imports it where it is installed, such as
transformers. The operators are for object detection: images, transforms and classifiers need none. So they are
declared, without a body, before torchvision is imported.

`python data/pretrained/torchvision_operators.py` does that for all programs of this Python, where it is needed.
"""

import importlib.machinery
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("nms", "qnms")  # those that torchvision speaks of while it is imported
_NAME = "torchvision_operators"  # of the copy in site-packages
_kept: list[object] = []  # an operator is there as long as its library is


class _BeforeTorchvision(MetaPathFinder):
    """Is asked where torchvision is, says nothing, and declares its operators if they can't be loaded."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            _declare()


def declare_when_imported() -> None:
    """See to it that an import of torchvision finds its operators; costs nothing until then."""
    asked = [type(each).__name__ for each in sys.meta_path]  # of the copy in site-packages too
    if "torchvision" not in sys.modules and _BeforeTorchvision.__name__ not in asked:
        sys.meta_path.insert(0, _BeforeTorchvision())


def _declare() -> None:
    spec = importlib.machinery.PathFinder.find_spec("torchvision")
    if spec is None or spec.origin is None or _kept:
        return
    compiled = [path for path in Path(spec.origin).parent.glob("_C*") if path.suffix in (".so", ".pyd", ".dylib")]
    try:
        import torch
    except ImportError:
        return
    try:
        for path in compiled:
            torch.ops.load_library(path)
    except OSError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in _OPERATORS:
            if not hasattr(torch.ops.torchvision, operator):  # a copy of this file may have declared it
                library.define(operator + _SIGNATURE)
        _kept.append(library)


def main() -> int:
    """Write what declares the operators into this Python's packages, where torchvision can't be imported without."""
    tried = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True, cwd="/")
    if "operator torchvision::" not in tried.stderr:
        return 0
    folder = Path(sysconfig.get_path("purelib"))
    shutil.copyfile(__file__, folder / f"{_NAME}.py")
    (folder / f"{_NAME}.pth").write_text(f"import {_NAME}; {_NAME}.declare_when_imported()\n", encoding="utf-8")
    sys.stdout.write(
        f"torchvision is built for another torch than {sys.executable} has; {folder / _NAME}.pth lets it be imported\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
