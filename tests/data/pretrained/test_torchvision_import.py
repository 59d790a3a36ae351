"""torchvision and timm can be imported beside a build of torch that torchvision's compiled part doesn't fit."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

BOTH = """
from data.pretrained.torchvision_import import import_timm, import_torchvision
v2 = import_torchvision("torchvision.transforms.v2")
timm = import_timm()
import torch, torchvision
image = torch.zeros(3, 8, 8, dtype=torch.uint8)
assert v2.Resize((4, 4))(image).shape == (3, 4, 4)
assert timm.create_model("test_vit").num_classes == 1000
assert import_torchvision() is torchvision
"""

MISSING = """
import sys
sys.modules["torchvision"] = None
from data.pretrained.errors import ModelUnavailableError
from data.pretrained.torchvision_import import import_timm
try:
    import_timm()
except ModelUnavailableError as error:
    assert "pip install -r requirements-images.txt" in str(error), error
else:
    raise SystemExit("not told")
"""


TRANSFORMERS = """
import importlib.util
importlib.util.find_spec("torchvision")  # as transformers asks whether it is there
import llm
from transformers import LlamaForCausalLM
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_both_are_imported():
    run(BOTH)


def test_a_missing_package_is_told():
    run(MISSING)


@pytest.mark.slow
def test_transformers_finds_it_too():
    run(TRANSFORMERS)
