"""Conflicts of real releases, as data, and a builder: each set installs, and fails where its script says.

`expected` is the last line of the failure, `known` the change that people found, `mended` all that mends it: of each of
these, one requirement for each distribution that has to move.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Conflict:
    """A set of releases that doesn't work together.

    Args:
        key: its name.
        packages: what is installed, as requirements.
        script: Python source that fails.
        expected: what the last lines of the failure hold.
        known: the smallest change that people found.
        mended: changes that mend it, the known one among them; empty where none was proved.
        after: what is installed on top, by itself and without its dependencies.
        overrides: requirements that overrule what others declare.
        files: files beside the script, by name.
        torch: whether it needs torch, of which a wheel for processors is given by UV_FIND_LINKS.
        visible: whether the environment alone shows it.
        installs: whether the environment can be made; where not, making it is what fails.
        variables: environment variables, of the failing command; {folder} is the folder of the script.
        branches: of the decision tree, what it may be called where no pin says whether the cause is right.
    """

    key: str
    packages: tuple[str, ...]
    script: str
    expected: str
    known: tuple[str, ...] = ()
    mended: tuple[tuple[str, ...], ...] = ()
    after: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    torch: bool = False
    visible: bool = True
    installs: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)
    branches: tuple[str, ...] = ()


_TRAINER = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
model = LlamaForCausalLM(LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                     num_attention_heads=2))
rows = [{"input_ids": torch.arange(8), "labels": torch.arange(8)} for _ in range(8)]
Trainer(model, TrainingArguments("out", use_cpu=True, max_steps=1, report_to=[]), train_dataset=rows).train()
"""
_LAUNCH = """
import gradio, socket
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
with gradio.Blocks() as blocks:
    gradio.Markdown("hello")
blocks.launch(prevent_thread_lock=True, server_port=port, share=False)
"""
_REQUIRED = "is required for a normal functioning of this module, but found"

CONFLICTS = (
    Conflict("R1", ("transformers==4.30.2", "numpy<2"), "import transformers", f"{_REQUIRED} tokenizers==0.15.2",
             ("tokenizers<0.14",), (("tokenizers<0.14",), ("transformers>=4.36,<4.40",)),
             after=("tokenizers==0.15.2",)),
    Conflict("R2", ("transformers==4.45.2", "numpy<2"), "from transformers import AutoConfig",
             f"{_REQUIRED} huggingface-hub==1.0.1", ("huggingface-hub<1.0",),
             (("huggingface-hub<1.0",), ("transformers>=5",)), overrides=("huggingface-hub==1.0.1",)),
    Conflict("R3", ("datasets==2.14.4", "pyarrow==21.0.0"), "import datasets",
             "module 'pyarrow' has no attribute 'PyExtensionType'", ("datasets>=2.15",),
             (("datasets>=2.14.7",), ("pyarrow<21",))),
    Conflict("R4", ("datasets==2.14.4", "pyarrow==14.0.2", "fsspec==2023.12.2", "numpy==1.26.4",
                    "huggingface-hub==0.20.3"),
             'import datasets\ndatasets.load_dataset("json", data_files="x.json", cache_dir="cache")',
             "Loading a dataset cached in a LocalFileSystem is not supported", ("datasets==2.14.6",),
             (("datasets>=2.14.6",), ("fsspec<2023.10",)), files={"x.json": '{"a": 1}\n'}),
    Conflict("R5", ("pyarrow==14.0.2", "numpy==2.2.6"), "import pyarrow", "numpy.core.multiarray failed to import",
             ("numpy<2",), (("numpy<2",), ("pyarrow>=16.1",))),
    Conflict("R6", ("openai==1.54.5", "httpx==0.28.1"),
             'import openai\nopenai.OpenAI(api_key="x", base_url="http://127.0.0.1:9/v1")',
             "Client.__init__() got an unexpected keyword argument 'proxies'", ("httpx<0.28",),
             (("httpx<0.28",), ("openai>=1.55.3",))),
    Conflict("R7", ("tensorboard==2.14.1", "setuptools==82.0.0", "numpy<2"), "import tensorboard.default",
             "No module named 'pkg_resources'", ("setuptools<82",), (("setuptools<82",), ("tensorboard>=2.21",))),
    Conflict("R8", ("flash-attn==2.7.4.post1",), "", "No module named 'torch'", visible=False, installs=False,
             branches=("build/isolation",)),
    Conflict("R9", ("llama-cpp-python==0.3.16",), "", "CMake configuration failed", visible=False, installs=False,
             variables={"CC": "/nonexistent/cc", "CXX": "/nonexistent/c++", "PATH": "{folder}/empty"},
             branches=("build/missing_tool",)),
    Conflict("R10", ("peft==0.14.0", "transformers==4.40.2"), "import peft",
             "cannot import name 'EncoderDecoderCache' from 'transformers'", ("peft==0.13.2",),
             (("peft<0.14",), ("transformers>=4.43",)), torch=True),
    Conflict("R11", ("peft==0.17.1", "transformers==5.24.0"), "from peft import LoraConfig",
             "cannot import name 'HybridCache' from 'transformers'", ("peft>=0.18",),
             (("peft>=0.18",), ("transformers<5",)), torch=True),
    Conflict("R12", ("trl==0.7.11", "transformers==4.46.3"), "from trl import SFTTrainer",
             "cannot import name 'top_k_top_p_filtering' from 'transformers'", ("transformers==4.38.2",),
             (("transformers<4.39",), ("trl>=0.8.0",)), torch=True),
    Conflict("R13", ("transformers==4.52.4", "accelerate==1.0.1"), _TRAINER,
             "unwrap_model() got an unexpected keyword argument 'keep_torch_compile'", ("accelerate>=1.3.0",),
             (("accelerate>=1.3.0",), ("transformers<4.52",)), torch=True),
    Conflict("R14", ("gradio==4.44.1", "huggingface-hub<1.0", "pydantic==2.10.6", "starlette==1.10.0",
                     "fastapi==0.165.0"), _LAUNCH, "When localhost is not accessible, a shareable link must be created",
             ("starlette<1", "fastapi<0.120"), (("starlette<1",), ("gradio>=5",))),
    Conflict("R15", ("transformers==4.26.1", "sentencepiece", "protobuf==5.29.5", "numpy<2"),
             "from transformers.utils import sentencepiece_model_pb2", "Descriptors cannot be created directly",
             ("protobuf<3.21",), (("protobuf<3.21",), ("transformers>=4.31",))),
    Conflict("R16", ("gradio==4.44.1", "huggingface-hub==1.0.1", "pydantic==2.10.6"), "import gradio",
             "cannot import name 'HfFolder' from 'huggingface_hub'", ("huggingface-hub<1.0",),
             (("huggingface-hub<1.0",), ("gradio>=5",))),
    Conflict("R17", ("peft==0.12.0", "transformers==4.44.2"),
             'from peft import LoraConfig\nLoraConfig(**{"r": 8, "corda_config": None})',
             "LoraConfig.__init__() got an unexpected keyword argument 'corda_config'", ("peft>=0.15",),
             (("peft>=0.15",),), torch=True, visible=False),
)  # fmt: skip

# Faults of the surroundings: the same environments, with something in the way.
FAULTS = (
    Conflict("E1", ("datasets==2.14.7", "pyarrow==14.0.2", "numpy<2", "fsspec==2023.9.2"),
             "from datasets import load_dataset", "cannot import name 'load_dataset' from 'datasets'",
             files={"datasets.py": "x = 1\n"}, branches=("import/shadowed",)),
    Conflict("E2", ("transformers==4.45.2", "numpy<2", "huggingface-hub<1.0"), "import transformers",
             f"{_REQUIRED} tokenizers==0.13.3", variables={"PYTHONPATH": "{folder}/leak"},
             files={"leak.txt": "tokenizers==0.13.3"}, branches=("import/shadowed", "runtime/environment")),
    Conflict("E3", ("transformers==4.45.2", "numpy<2", "huggingface-hub<1.0"), "import transformers",
             f"{_REQUIRED} tokenizers==0.13.3",
             variables={"PYTHONUSERBASE": "{folder}/user"}, files={"user.txt": "tokenizers==0.13.3"},
             branches=("import/shadowed", "runtime/environment", "import/wrong_version")),
    Conflict("E4", ("transformers==4.45.2", "numpy<2", "huggingface-hub<1.0"), "import transformers", "",
             files={"stale.txt": "huggingface_hub-0.17.1"}, branches=("import/stale_or_partial",)),
)  # fmt: skip


def uv() -> list[str]:
    """Return the command that runs uv."""
    found = shutil.which("uv")
    return [found] if found else [sys.executable, "-m", "uv"]


def build(conflict: Conflict, folder: Path, python: str = "3.11") -> subprocess.CompletedProcess[str]:
    """Make a conflict's environment in `folder`/venv, and its script `folder`/script.py.

    Args:
        conflict: the conflict.
        folder: where; made where it is not there.
        python: version of the interpreter, or its path.

    Returns:
        What the last command of making it answered.
    """
    folder.mkdir(parents=True, exist_ok=True)
    system = ["--system-site-packages"] if conflict.key == "E3" else []
    done = _run([*uv(), "venv", "-q", "--python", python, *system, str(folder / "venv")], folder)
    interpreter = str(folder / "venv" / "bin" / "python")
    install = [*uv(), "pip", "install", "--python", interpreter]
    (folder / "overrides.txt").write_text("\n".join(conflict.overrides))
    overrides = ["--override", "overrides.txt"] if conflict.overrides else []
    torch = ["torch==2.13.0"] if conflict.torch else []
    if conflict.installs and not done.returncode:
        done = _run([*install, *overrides, *conflict.packages, *torch], folder)
    for one in conflict.after:
        done = done if done.returncode else _run([*install, "--no-deps", one], folder)
    for name, text in conflict.files.items():
        (folder / name).write_text(text)
    (folder / "script.py").write_text(conflict.script + "\n")
    (folder / "empty").mkdir(exist_ok=True)
    if conflict.key == "E2":
        done = _run([*install, "--no-deps", "--target", "leak", conflict.files["leak.txt"]], folder)
    elif conflict.key == "E3":
        _run([*uv(), "pip", "uninstall", "--python", interpreter, "tokenizers"], folder)
        site = folder / "user" / "lib" / f"python{python}" / "site-packages"
        done = _run([*install, "--no-deps", "--target", str(site), conflict.files["user.txt"]], folder)
    elif conflict.key == "E4":
        stale = next((folder / "venv" / "lib").glob("python*")) / "site-packages" / "huggingface_hub-0.17.1.dist-info"
        stale.mkdir(exist_ok=True)
        (stale / "METADATA").write_text("Metadata-Version: 2.1\nName: huggingface-hub\nVersion: 0.17.1\n")
        (stale / "INSTALLER").write_text("pip\n")
    if not conflict.installs:
        settings = {name: value.format(folder=folder) for name, value in conflict.variables.items()}
        done = _run([*install, *conflict.packages], folder, settings)
    return done


def fail(conflict: Conflict, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a conflict's script in the environment that `build` made, and return what it answered."""
    settings = {name: value.format(folder=folder) for name, value in conflict.variables.items()}
    return _run([str(folder / "venv" / "bin" / "python"), "script.py"], folder, settings)


def _run(
    command: list[str], folder: Path, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONUSERBASE")
    variables = {name: value for name, value in os.environ.items() if name not in left_out}
    variables |= {"NO_COLOR": "1", "HF_HUB_OFFLINE": "1"} | dict(settings or {})
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=600)
