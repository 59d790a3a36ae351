"""Make the snapshot of releases from an index: `python -m doctor.knowledge.build_metadata`.

A release never changes but for being yanked, so that only new ones are read again.
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from constants import ARTIFACTS_DIR
from doctor.knowledge.index import File, Index, IndexProblem
from doctor.knowledge.metadata import REFRESHED, SHIPPED, Metadata, Release, unpacked
from doctor.knowledge.packed import INDEX, Packed, write

logger = logging.getLogger(__name__)

# Of projects with hundreds of releases older ones are of no use to anybody.
YEARS = 5.5
_CONNECTIONS = 6
_LARGEST = 4 << 20
_NAMES = """
torch torchvision torchaudio transformers tokenizers huggingface-hub accelerate datasets peft trl bitsandbytes
safetensors diffusers sentence-transformers deepspeed vllm sglang sgl-kernel sglang-kernel flash-attn flash-attn-4
flashinfer-python xformers triton triton-windows unsloth unsloth-zoo axolotl llamafactory openpipe-art
bespokelabs-curator gradio gradio-client pydantic pydantic-core fastapi starlette httpx openai protobuf sentencepiece
pyarrow fsspec numpy scipy pandas scikit-learn numba llvmlite setuptools tensorboard llama-cpp-python timm lightning
pytorch-lightning torchmetrics tensorflow tf-keras keras jax jaxlib ml-dtypes wandb mlflow ray langchain
langchain-core langgraph openai-agents autogen-agentchat crewai tinker marimo adapters adapter-transformers
compressed-tensors optimum auto-gptq autoawq gptqmodel torchao transformer-lens evaluate lm-eval liger-kernel
cut-cross-entropy einops hf-transfer hf-xet kernels tiktoken xgrammar outlines llguidance mistral-common uvicorn
aiohttp requests urllib3 jinja2 markupsafe pillow opencv-python matplotlib packaging typing-extensions filelock dill
multiprocess psutil tqdm regex rich typer click websockets anyio anthropic litellm onnx onnxruntime mamba-ssm
causal-conv1d flash-linear-attention lmdeploy hqq optuna omegaconf hydra-core pip wheel ninja tyro torchcodec decord
av soundfile librosa torchdata torchtext torch-geometric torch-scatter torch-sparse torch-cluster torch-tensorrt
tensorrt tensorrt-llm transformer-engine megatron-core verl ms-swift modelscope swanlab tensorboardx gguf ctranslate2
faster-whisper openai-whisper whisperx open-clip-torch kornia albumentations opencv-python-headless
opencv-contrib-python scikit-image imageio seaborn plotly streamlit ipython ipykernel ipywidgets notebook pyyaml
cython cmake pybind11 scikit-build-core sympy networkx cupy-cuda12x faiss-cpu chromadb llama-index-core
langchain-community langchain-openai langsmith sqlalchemy orjson pyzmq six attrs jsonschema werkzeug flask absl-py
grpcio googleapis-common-protos tensorflow-text tensorflow-probability flax optax orbax-checkpoint chex
onnxruntime-gpu onnxscript optimum-quanto optimum-onnx optimum-intel openvino controlnet-aux cuda-python cuda-bindings
nvidia-ml-py pynvml xxhash python-multipart altair tomlkit numexpr h5py zarr dask polars duckdb xgboost lightgbm spacy
nltk gensim sacrebleu rouge-score bert-score bertopic setfit mmcv mmengine ultralytics pycocotools gym gymnasium
stable-baselines3 nemo-toolkit torchtune litgpt fairseq pyannote-audio speechbrain rotary-embedding-torch
x-transformers pytorch-optimizer lion-pytorch galore-torch schedulefree exllamav2 eetq autoawq-kernels sageattention
lm-format-enforcer msgspec outlines-core openai-harmony prometheus-client prometheus-fastapi-instrumentator watchfiles
cloudpickle uvloop httptools h11 sniffio nvidia-cudnn-cu12 nvidia-cublas-cu12 nvidia-cuda-runtime-cu12
nvidia-nccl-cu12 nvidia-cusparselt-cu12 nvidia-nvjitlink-cu12 nvidia-cudnn-cu13 nvidia-nccl-cu13 cuda-toolkit docling
pypdf pydantic-settings pydantic-ai smolagents dspy guidance ollama groq mistralai cohere together replicate fschat
optree pytz python-dateutil certifi charset-normalizer idna cffi cryptography textual joblib threadpoolctl
imageio-ffmpeg moviepy ffmpy semantic-version soxr sounddevice numcodecs tables bottleneck patsy statsmodels shap
sacremoses tensordict torchrl fairscale apache-tvm-ffi nvidia-modelopt llmcompressor auto-round qwen-vl-utils
tinker-cookbook mcp fastmcp langgraph-checkpoint langgraph-prebuilt langchain-text-splitters langchain-anthropic
autogen-core autogen-ext rapidfuzz pyautogen ag2
"""
PROJECTS = tuple(_NAMES.split())


@dataclass(frozen=True)
class Changes:
    """What a refresh changed.

    Args:
        added: new releases by project, the oldest first.
        yanked: releases that were withdrawn since, by project.
        problems: what could not be read, a sentence each.
    """

    added: Mapping[str, tuple[str, ...]]
    yanked: Mapping[str, tuple[str, ...]]
    problems: tuple[str, ...]


def refresh(
    folder: Path | None = None,
    projects: Iterable[str] | None = None,
    *,
    index_url: str | None = None,
    today: date | None = None,
) -> Changes:
    """Look up what was released since, and keep it beside the shipped snapshot.

    Args:
        folder: where to keep it; None for the doctor's own folder, where it is found by itself.
        projects: names of projects; None for all that are in the snapshot.
        index_url: the index; None for what uv and pip use.
        today: the day of the snapshot; None for today.

    Returns:
        What changed.

    Raises:
        IndexProblem: if nothing at all could be read.
    """
    path = (folder or REFRESHED.parent) / REFRESHED.name
    known = Metadata(SHIPPED, path)
    wanted = [canonicalize_name(name) for name in projects] if projects else sorted(known.projects)
    index = Index(index_url, path.parent / "index")
    members: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    added, yanked = {}, {}
    for name in wanted:
        try:
            member = look_up(name, index, known.packed(name))
        except IndexProblem as problem:
            problems.append(str(problem))
            if len(problems) == 3 and not members:
                break  # there is no network: the rest would only take time
            continue
        before = {release.version: release.yanked for release in known.releases(name)}
        members[name] = member
        after = {Version(entry[0]): "y" in entry[5] for entry in member["releases"]}
        added[name] = tuple(str(version) for version in after if version not in before)
        yanked[name] = tuple(str(version) for version, gone in after.items() if gone and before.get(version) is False)
    if not members:
        raise IndexProblem(problems[0] if problems else "no projects to look up")
    day = (today or datetime.now(UTC).date()).isoformat()
    _pack(path, {**_members_of(path), **members}, dict.fromkeys(members, day))
    return Changes(_filled(added), _filled(yanked), tuple(problems))


def look_up(
    name: str, index: Index, known: Mapping[str, Any] | None = None, since: date | None = None
) -> dict[str, Any]:
    """Return a project as it is packed, read from an index.

    Args:
        name: the project.
        index: the index.
        known: the project as it was packed before: what its releases require is not read again.
        since: the day before which releases are left out.

    Raises:
        IndexProblem: if the index cannot be reached or doesn't know the project.
    """
    by_version: dict[Version, list[File]] = {}
    for file in index.files(name):
        version = version_of(file)
        if version is not None:
            by_version.setdefault(version, []).append(file)
    stable = [version for version in by_version if not version.is_prerelease]
    usable = [version for version in stable if not all(file.yanked for file in by_version[version])]
    chosen = sorted(stable if usable else by_version)
    if since:
        chosen = [one for one in chosen if _day(by_version[one]) >= since] or chosen[-1:]
    old = {release.version: release for release in unpacked(known or {})}

    def read(version: Version) -> Release:
        files = by_version[version]
        here = old.get(version)
        needs = here.requires if here and not here.unread else index.requires(best_file(files))
        wheels = [file for file in files if file.is_wheel]
        return Release(
            version=version,
            uploaded=_day(files),
            requires=needs or (),
            requires_python=(wheels or files)[0].requires_python,
            yanked=all(file.yanked for file in files),
            wheels=tuple(sorted({"-".join(file.name.removesuffix(".whl").split("-")[-3:]) for file in wheels})),
            sdist=any(file.is_sdist for file in files),
            unread=needs is None,
        )

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        releases = list(pool.map(read, chosen))
    made = packed(releases, len(by_version) - len(stable))
    newest = next((one for one in reversed(chosen) if any(file.is_wheel for file in by_version[one])), None)
    if known and "modules" in known and newest in old:
        modules = list(known["modules"])
    else:
        modules = list(index.modules(best_file(by_version[newest]))) if newest else []
    return {**made, "modules": modules}


def packed(releases: Iterable[Release], prereleases: int) -> dict[str, Any]:
    """Return releases as a member of the snapshot: what many of them share stands once."""
    lines: dict[str, int] = {}
    tags: dict[str, int] = {}
    requires: dict[tuple[int, ...], int] = {}
    wheels: dict[tuple[int, ...], int] = {}
    entries = []
    for release in releases:
        needs = tuple(lines.setdefault(line, len(lines)) for line in release.requires)
        has = tuple(tags.setdefault(tag, len(tags)) for tag in release.wheels)
        flags = "y" * release.yanked + "s" * release.sdist + "u" * release.unread
        entries.append(
            [
                str(release.version),
                release.uploaded.isoformat(),
                requires.setdefault(needs, len(requires)),
                release.requires_python,
                wheels.setdefault(has, len(wheels)),
                flags,
            ]
        )
    return {
        "lines": list(lines),
        "tags": list(tags),
        "requires": list(requires),
        "wheels": list(wheels),
        "releases": entries,
        "prereleases": prereleases,
    }


def version_of(file: File) -> Version | None:
    """Return the version in a file's name, None for what is no wheel or source distribution."""
    try:
        if file.is_wheel:
            return Version(file.name.split("-")[1])
        if file.is_sdist:
            stem = file.name
            for end in (".tar.gz", ".tar.bz2", ".tgz", ".zip"):
                stem = stem.removesuffix(end)
            return Version(stem.rpartition("-")[2])
    except (InvalidVersion, IndexError):
        pass
    return None


def best_file(files: Iterable[File]) -> File:
    """Return the file whose metadata stand for a release: a wheel for any machine, else for Linux, else the source."""

    def rank(file: File) -> tuple[int, int]:
        if not file.is_wheel:
            return (3 if file.is_sdist else 4, file.size)
        if file.name.endswith("-any.whl"):
            return (0, file.size)
        return (1 if "linux" in file.name and "x86_64" in file.name else 2, file.size)

    return min(files, key=rank)


def _day(files: Iterable[File]) -> date:
    """Return the day on which the first file of a release came."""
    days = sorted(file.uploaded[:10] for file in files if file.uploaded)
    return date.fromisoformat(days[0]) if days else date(1970, 1, 1)


def _filled(found: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {name: versions for name, versions in found.items() if versions}


def _members_of(path: Path) -> dict[str, dict[str, Any]]:
    """Return the members of a snapshot as they are, with its index."""
    old = Packed(path)
    return {name: old.read(name) for name in old.members}


def _pack(path: Path, members: Mapping[str, Mapping[str, Any]], days: Mapping[str, str]) -> None:
    """Write a snapshot: members by a project's name, or as they stand in another snapshot."""
    index = members.get(INDEX, {})
    files = {name if name.endswith(".json") else f"{name}.json": made for name, made in members.items()}
    owners: dict[str, list[str]] = {}
    for name, made in sorted(files.items()):
        for module in made.get("modules", ()) if name != INDEX else ():
            owners.setdefault(module, []).append(name.removesuffix(".json"))
    files[INDEX] = {"dates": {**index.get("dates", {}), **days}, "modules": owners}
    write(path, files)


def build(
    path: Path,
    projects: Iterable[str],
    index: Index,
    kept: Path,
    today: date,
    *,
    again: bool = False,
    years: float = YEARS,
) -> tuple[str, ...]:
    """Make a snapshot; what an interrupted one has read is not read again.

    Args:
        path: the snapshot.
        projects: names of projects.
        index: the index.
        kept: folder of what was read.
        today: the day of the snapshot.
        again: ask the index again for what was read.
        years: how far back releases are kept.

    Returns:
        What could not be read, a sentence each.
    """
    since = date.fromordinal(today.toordinal() - round(years * 365.25))
    kept.mkdir(parents=True, exist_ok=True)
    members: dict[str, dict[str, Any]] = {}
    days: dict[str, str] = {}
    problems = []
    for name in map(canonicalize_name, projects):
        file = kept / f"{name}.json"
        old = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        if old is None or again:
            try:
                member = look_up(name, index, old["member"] if old else None, since)
            except IndexProblem as problem:
                problems.append(str(problem))
                if old is None:
                    continue
                member, day = old["member"], old["day"]
            else:
                day = today.isoformat()
                file.write_text(json.dumps({"day": day, "member": member}), encoding="utf-8")
                logger.info("%s: %d releases", name, len(member["releases"]))
        else:
            member, day = old["member"], old["day"]
        members[name], days[name] = member, day
    _pack(path, members, days)
    return tuple(problems)


def main(arguments: list[str] | None = None, tell: Callable[[str], object] = logger.info) -> int:
    """Make the snapshot that is shipped.

    Args:
        arguments: of the command line.
        tell: takes lines for the person at the terminal.

    Returns:
        The exit code: 0 if all projects are in it and it is small enough.
    """
    parser = argparse.ArgumentParser(prog="python -m doctor.knowledge.build_metadata", description=__doc__)
    parser.add_argument("--refresh", action="store_true", help="ask the index again for what was read before")
    parser.add_argument("--index-url", help="the index; default: what uv and pip use, else PyPI")
    parser.add_argument("--projects", nargs="+", default=PROJECTS, help="names of projects")
    parser.add_argument("--output", type=Path, default=SHIPPED, help="the snapshot")
    parser.add_argument("--kept", type=Path, default=ARTIFACTS_DIR / "doctor" / "building" / "metadata")
    given = parser.parse_args(arguments)
    today = datetime.now(UTC).date()
    index = Index(given.index_url, given.kept / "index")
    problems = build(given.output, given.projects, index, given.kept, today, again=given.refresh)
    for problem in problems:
        tell(problem)
    size = given.output.stat().st_size
    tell(f"{given.output}: {size / 1e6:.2f} MB")
    return int(bool(problems) or size > _LARGEST)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
