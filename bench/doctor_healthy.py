"""Environments that work: what does the doctor say of them that it should not?

    python bench/doctor_healthy.py [NAME ...] [--folder DIR] [--pythons DIR]

Forty sets of the field's packages, as resolved today or on a day before, on Python 3.10 to 3.13. Each is installed by
uv (network, or its cache) and imported; what imports is healthy, and is diagnosed whole. torch is a wheel for
processors, from UV_FIND_LINKS. Prints each finding that is no note: an error is a false alarm.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "doctor"))

from conflicts import uv  # noqa: E402  # beside the tests, which use it too


@dataclass(frozen=True)
class Healthy:
    """A set that works.

    Args:
        key: its name.
        python: version of the interpreter.
        packages: what is installed, as requirements.
        imports: Python source that shows that it works.
        before: day whose newest releases are taken, "2024-06-01"; today's if empty.
    """

    key: str
    python: str
    packages: str
    imports: str
    before: str = ""


SETS = (
    Healthy("fine-tuning", "3.11",
            "torch==2.13.0 transformers peft trl datasets accelerate",
            "import peft, datasets; from trl import SFTTrainer; from transformers import AutoModelForCausalLM"),
    Healthy("fine-tuning-2025-10", "3.11",
            "torch==2.13.0 transformers==4.57.1 trl==0.24.0 peft==0.17.1 accelerate==1.11.0 datasets==4.3.0",
            "import peft; from trl import SFTTrainer, DPOTrainer; from transformers import Trainer"),
    Healthy("fine-tuning-2025-02", "3.11",
            "torch==2.13.0 transformers==4.48.3 trl==0.14.0 peft==0.14.0 accelerate==1.3.0 datasets==3.2.0",
            "import peft; from trl import SFTTrainer; from transformers import Trainer"),
    Healthy("fine-tuning-2024-06", "3.11",
            "torch==2.13.0 transformers==4.41.2 trl==0.9.4 peft==0.11.1 accelerate==0.31.0 datasets==2.19.2 "
            "rich numpy<2 pyarrow<17",
            "import peft, datasets; from trl import SFTTrainer"),
    Healthy("inference", "3.11",
            "torch==2.13.0 transformers accelerate",
            "from transformers import pipeline; import accelerate"),
    Healthy("embeddings", "3.11",
            "torch==2.13.0 sentence-transformers",
            "from sentence_transformers import SentenceTransformer"),
    Healthy("few-shot", "3.11",
            "torch==2.13.0 setfit==1.1.3 transformers==4.57.1 sentence-transformers==5.1.2 datasets==4.3.0",
            "import setfit"),
    Healthy("lightning", "3.11",
            "torch==2.13.0 lightning torchmetrics",
            "import lightning, torchmetrics"),
    Healthy("diffusion", "3.11",
            "torch==2.13.0 diffusers transformers accelerate",
            "from diffusers import StableDiffusionPipeline"),
    Healthy("graphs", "3.11",
            "torch==2.13.0 torch_geometric",
            "import torch_geometric"),
    Healthy("skorch", "3.11",
            "torch==2.13.0 skorch scikit-learn tensorboard",
            "import skorch; from torch.utils.tensorboard import SummaryWriter"),
    Healthy("evaluation", "3.11",
            "torch==2.13.0 lm-eval",
            "import lm_eval"),
    Healthy("gradio", "3.12",
            "gradio",
            "import gradio"),
    Healthy("gradio-3.13", "3.13",
            "gradio",
            "import gradio"),
    Healthy("gradio-2024-06", "3.10",
            "gradio",
            "import gradio", "2024-06-01"),
    Healthy("web", "3.13",
            "fastapi pydantic uvicorn sqlmodel httpx",
            "import fastapi, sqlmodel, uvicorn"),
    Healthy("web-2023-12", "3.10",
            "fastapi pydantic uvicorn",
            "import fastapi, uvicorn", "2023-12-01"),
    Healthy("agents", "3.12",
            "openai langchain langgraph langchain-openai",
            "import langchain, langgraph.graph, langchain_openai"),
    Healthy("agents-2024-06", "3.10",
            "openai langchain langchain-community",
            "import langchain, openai; from langchain.chains import LLMChain", "2024-06-15"),
    Healthy("agents-3.13", "3.13",
            "anthropic openai smolagents litellm",
            "import anthropic, openai, smolagents, litellm"),
    Healthy("dspy", "3.12",
            "dspy instructor",
            "import dspy, instructor"),
    Healthy("retrieval", "3.12",
            "llama-index-core chromadb",
            "import llama_index.core, chromadb"),
    Healthy("science", "3.12",
            "scikit-learn pandas matplotlib seaborn statsmodels",
            "import sklearn.ensemble, seaborn, statsmodels.api"),
    Healthy("science-3.13", "3.13",
            "scikit-learn pandas matplotlib scipy xgboost lightgbm",
            "import sklearn.svm, lightgbm, xgboost"),
    Healthy("science-2023-12", "3.10",
            "scikit-learn pandas matplotlib seaborn",
            "import sklearn.ensemble, seaborn", "2023-12-01"),
    Healthy("jax", "3.12",
            "jax flax optax",
            "import jax, flax, optax"),
    Healthy("jax-3.13", "3.13",
            "jax equinox",
            "import jax, equinox"),
    Healthy("data", "3.13",
            "datasets polars duckdb",
            "import datasets, polars, duckdb"),
    Healthy("data-2024-01", "3.10",
            "datasets pandas",
            "import datasets", "2024-01-15"),
    Healthy("tokenizers", "3.12",
            "transformers sentencepiece protobuf tiktoken",
            "import transformers, tiktoken; from transformers import AutoTokenizer"),
    Healthy("tokenizers-2023-12", "3.10",
            "transformers datasets",
            "import transformers, datasets; from transformers import AutoTokenizer", "2023-12-10"),
    Healthy("ray", "3.12",
            "ray[default]",
            "import ray"),
    Healthy("dask", "3.12",
            "dask[complete]",
            "import dask.dataframe, distributed"),
    Healthy("notebook", "3.12",
            "jupyterlab ipywidgets",
            "import jupyterlab, ipywidgets"),
    Healthy("marimo", "3.13",
            "marimo altair",
            "import marimo, altair"),
    Healthy("tracking", "3.11",
            "mlflow wandb tensorboard",
            "import mlflow, wandb, tensorboard"),
    Healthy("streamlit", "3.12",
            "streamlit plotly",
            "import streamlit, plotly.express"),
    Healthy("text", "3.12",
            "spacy nltk",
            "import spacy, nltk"),
    Healthy("vision", "3.12",
            "opencv-python-headless albumentations scikit-image",
            "import cv2, albumentations, skimage.filters"),
    Healthy("tuning", "3.13",
            "optuna hydra-core omegaconf",
            "import optuna, hydra"),
)  # fmt: skip


def build(one: Healthy, folder: Path, pythons: Path | None) -> str | None:
    """Install a set and import it.

    Args:
        one: the set.
        folder: where.
        pythons: a folder with an interpreter folder for each version, such as ~/.pyenv/versions; None asks uv.

    Returns:
        None where it works, else what failed.
    """
    if (folder / "ok").exists():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(pythons.glob(f"{one.python}.*/bin/python")) if pythons else []
    python = str(found[-1]) if found else one.python
    interpreter = str(folder / "venv" / "bin" / "python")
    before = ["--exclude-newer", one.before] if one.before else []
    for command in (
        [*uv(), "venv", "-q", "--clear", "--python", python, str(folder / "venv")],
        [*uv(), "pip", "install", "-q", "--python", interpreter, *before, *one.packages.split()],
        [interpreter, "-c", one.imports],
    ):
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if ran.returncode:
            return (ran.stderr.strip().splitlines() or ["no word"])[-1]
    (folder / "ok").write_text("imported\n")
    return None


def diagnose(folder: Path) -> tuple[list[dict[str, object]], float]:
    """Return what the doctor finds in an environment, without notes, and the seconds that it took."""
    command = [sys.executable, str(ROOT / "doctor.py"), "--python", str(folder / "venv"), "--folder", str(folder),
               "--json", "--proof", "never", "--memory", str(folder / "memory")]  # fmt: skip
    begun = time.perf_counter()
    ran = subprocess.run(command, cwd=folder, env={**os.environ, "CUDA_HOME": ""}, capture_output=True, text=True)
    took = time.perf_counter() - begun
    try:
        found = json.loads(ran.stdout)["findings"]
    except ValueError:
        found = [{"level": "error", "id": "crash", "verdict": ran.stderr[-300:]}]
    return [one for one in found if one["level"] != "note"], took


def main() -> None:
    """Diagnose the sets that are named, or all, and print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("names", nargs="*", metavar="NAME", help="sets (all)")
    options.add_argument("--folder", type=Path, help="keeps the environments, and uses those that are there")
    options.add_argument("--pythons", type=Path, help="folder of interpreters by version, such as ~/.pyenv/versions")
    given = options.parse_args()
    levels: Counter[str] = Counter()
    times = []
    with tempfile.TemporaryDirectory() as scratch:
        for one in SETS:
            if given.names and one.key not in given.names:
                continue
            folder = (given.folder or Path(scratch)).resolve() / one.key
            fault = build(one, folder, given.pythons)
            if fault:
                print(f"{one.key:24} is not healthy: {fault[:150]}", flush=True)
                continue
            found, took = diagnose(folder)
            times.append(took)
            count = Counter(str(finding["level"]) for finding in found)
            levels.update(count)
            print(f"{one.key:24} errors {count['error']} warnings {count['warning']} {took:5.1f} s", flush=True)
            for finding in found:
                print(f"    {finding['level']} {finding['id']}: {str(finding['verdict'])[:200]}", flush=True)
    if times:
        print(f"\n{len(times)} healthy environments: {levels['error']} errors, {levels['warning']} warnings "
              f"({levels['warning'] / len(times):.2f} each); {sorted(times)[len(times) // 2]:.1f} s in the median, "
              f"{max(times):.1f} s at most")  # fmt: skip


if __name__ == "__main__":
    main()
