"""What a text shows of mixed, foreign, empty and stale files: texts that are alike in kind, and texts that are not."""

from types import SimpleNamespace

import pytest

from doctor.case import Case
from doctor.diagnosis.mixed_files import find_mixed_files
from doctor.environment.facts import Declared, Environment
from doctor.failure.read import read_failure
from doctor.finding import Finding

OWNERS = {"transformers": ("transformers", "adapter-transformers"), "datasets": ("datasets",),
          "cv2": ("opencv-python", "opencv-python-headless")}  # fmt: skip
KNOWN = SimpleNamespace(metadata=SimpleNamespace(owners=lambda name: OWNERS.get(name, ())))


def found(text: str, **told: str) -> list[Finding]:
    declared = tuple(Declared(name.replace("_", "-"), specifier) for name, specifier in told.items())
    failure = read_failure(text)
    here = Environment("the text", declared=declared).with_declared(failure.stated)
    return list(find_mixed_files(Case(here, failure), KNOWN))


@pytest.mark.parametrize("text, told, id, branch, kind", [
    ("ImportError: cannot import name 'check' from 'transformers.utils' (/v/site-packages/transformers/utils.py)",
     {"transformers": "==4.33.3", "adapter_transformers": ""}, "two-owners-of-a-module", "import/shadowed", "clean"),
    ("AttributeError: partially initialized module 'cv2' has no attribute 'gapi_wip_gst_GStreamerPipeline'\n\n"
     "opencv-python 4.8.0.76\nopencv-python-headless 4.9.0.80",
     {}, "two-owners-of-a-module", "import/shadowed", "clean"),
    ("AttributeError: module 'datasets' has no attribute '__version__'", {}, "empty-namespace", "import/shadowed",
     "rename"),
    ("ValueError: what is this file\n\npeft: 0.14.0 just installed, but an older copy in the user site is imported",
     {"peft": ""}, "copy-in-user-site", "import/shadowed", "environment"),
    ("Unsloth: Could not build the patched trl.trainer.sft_trainer, so training will\nuse trl's own trainer", {},
     "compiled-cache-of-another-release", "import/stale_or_partial", "clean"),
    ("ImportError: bad magic number in 'mymodule': b'\\x03\\xf3\\r\\n'", {}, "bytecode-of-another-python",
     "import/stale_or_partial", "clean"),
    ("EOFError: marshal data too short", {}, "bytecode-of-another-python", "import/stale_or_partial", "clean"),
    ("SyntaxError: source code string cannot contain null bytes", {}, "file-with-null-bytes",
     "import/stale_or_partial", "clean"),
    ("ERROR: Could not install packages due to an OSError: [Errno 2] No such file or directory:"
     " '/v/lib/python3.11/site-packages/numpy-1.26.4.dist-info/METADATA'", {}, "metadata-cut",
     "import/stale_or_partial", "clean"),
    ("ValueError: Unable to compare versions for tokenizers>=0.14,<0.19: need=0.14 found=None. This is unusual."
     " Consider reinstalling tokenizers.", {}, "version-is-none", "import/stale_or_partial", "clean"),
    ("ImportError: /r/.cache/torch_extensions/py310_cu121/fused_adam/fused_adam.so: undefined symbol: _ZN3c104", {},
     "built-extension-stale", "import/stale_or_partial", "clean"),
])  # fmt: skip
def test_what_a_text_shows(text, told, id, branch, kind):
    findings = [one for one in found(text, **told) if one.id == id]
    assert len(findings) == 1, [one.id for one in found(text, **told)]
    assert findings[0].branch == branch and findings[0].changes[0].kind == kind and findings[0].evidence[0] in text


@pytest.mark.parametrize("text", [
    "ImportError: cannot import name 'check' from 'transformers.utils' (/v/site-packages/transformers/utils.py)",
    "AttributeError: module 'datasets' has no attribute 'load_metric'",
    "AttributeError: module 'mine' has no attribute '__version__'",
    "  File \"/w/unsloth_compiled_cache/UnslothSFTTrainer.py\", line 1, in step\nValueError: CUDA out of memory.",
    "ImportError: /v/site-packages/flash_attn_2_cuda.so: undefined symbol: _ZN3c104cuda",
    "Installing collected packages: peft\nWARNING: installed in the user site, as site-packages is not writeable",
])  # fmt: skip
def test_texts_that_are_something_else(text):
    assert found(text) == []


def test_what_is_to_be_installed_again_is_named():
    folder = "/v/site-packages/huggingface_hub-0.26.0.dist-info"
    text = f"FileNotFoundError: [Errno 2] No such file or directory: '{folder}/METADATA'"
    finding = found(text, huggingface_hub="==0.26.0")[0]
    assert finding.changes[0].requirements == ("huggingface-hub==0.26.0",)
    assert finding.changes[0].commands == (f"rm -r {folder}",)
