"""`python doctor.py smoke`: does it run? Imports, a product of matrices, a tiny model: this runs the environment."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from doctor.commands.options import add_facts, add_output, add_python, parser, width
from doctor.environment.facts import Environment
from doctor.errors import InputError, PatientError

_DESCRIPTION = """Run an environment: import packages, multiply on CPU and GPU, train a tiny model, use a tokenizer.

Unlike the other commands this runs what is installed, each check in a process of its own, in an empty folder, without
network. Without PACKAGE the known ones of what is installed are imported. The first failure is diagnosed.

Exit codes: 0 all passed, 1 something failed, 3 nothing to check is installed."""
# Distributions that are imported where they are installed, by the module that shows most.
_KNOWN = {
    "torch": "torch", "unsloth": "unsloth", "transformers": "transformers", "tokenizers": "tokenizers",
    "datasets": "datasets", "accelerate": "accelerate", "peft": "peft", "trl": "trl", "bitsandbytes": "bitsandbytes",
    "flash-attn": "flash_attn",
    "xformers": "xformers.ops", "vllm": "vllm", "sglang": "sglang", "deepspeed": "deepspeed", "axolotl": "axolotl",
    "llamafactory": "llamafactory", "sentence-transformers": "sentence_transformers", "llama-cpp-python": "llama_cpp",
    "mlx-lm": "mlx_lm", "gradio": "gradio", "openai": "openai", "pyarrow": "pyarrow", "numpy": "numpy",
    "tensorboard": "tensorboard.default",
}  # fmt: skip
_MATMUL = "import torch; x = torch.ones(8, 8, device={device!r}); assert (x @ x).sum().item() == 512"
_MODEL = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2)
model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2))
ids = torch.arange(16)[None]
loss = model(input_ids=ids, labels=ids).loss
loss.backward()
assert torch.isfinite(loss)
"""
_TOKENIZER = """
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
made = Tokenizer(models.BPE(unk_token="[UNK]"))
made.pre_tokenizer = pre_tokenizers.Whitespace()
made.train_from_iterator(["one two three"] * 4, trainers.BpeTrainer(special_tokens=["[UNK]"], show_progress=False))
assert made.decode(made.encode("one two").ids).replace(" ", "") == "onetwo"
"""
_CUDA_MATMUL = """
import torch, sys
if not torch.cuda.is_available():
    sys.exit(77)
for number in range(torch.cuda.device_count()):
    x = torch.ones(8, 8, device=f"cuda:{number}")
    assert (x @ x).sum().item() == 512
"""
_NOTHING_THERE = 77
PASSED, FAILED, NOTHING = 0, 1, 3


@dataclass(frozen=True)
class Checked:
    """A check: its name, "passed", "failed", "too long" or "not here", seconds, and the end of what it wrote."""

    name: str
    result: str
    seconds: float
    output: str = ""


def main(words: list[str]) -> int:
    """Run the checks.

    Args:
        words: packages and options.

    Returns:
        The exit code.

    Raises:
        InputError: there is no such environment, or package in it.
        PatientError: its Python can't be run.
    """
    given = _parser().parse_args(words)
    from doctor.commands.examination import Patient, examine, read_named
    from doctor.commands.examine import write
    from doctor.commands.given_facts import read_facts
    from doctor.failure.read import read_failure
    from doctor.knowledge.base import Knowledge
    from doctor.redaction import redact

    facts = read_facts(given.fact)
    environment = read_named(given.python)
    if environment.interpreter is None or environment.interpreter.fault:
        raise PatientError(
            f"its Python can't be run: {environment.interpreter.fault if environment.interpreter else 'unknown'}"
        )
    checks = list(_checks(environment, given.package))
    if not checks:
        sys.stderr.write(f"error: {environment.source} has none of the known packages: name some: smoke PACKAGE ...\n")
        return NOTHING
    results = []
    loud = not given.json and not given.quiet
    for name, code in checks:
        one = _run(environment.interpreter.executable, name, code, given.timeout)
        results.append(one)
        if loud:
            sys.stdout.write(f"{one.result:9} {one.name}  ({one.seconds:.1f} s)\n")
            sys.stdout.flush()
    failed = [one for one in results if one.result in ("failed", "too long")]
    broken = next((one for one in failed if one.output), None)
    answer = None
    if broken:
        answer = examine(Patient(environment, None), read_failure(broken.output), facts, Knowledge())
    if given.remember and not failed:
        _remember(given.remember, environment, results, given.memory)
    if given.json:
        from doctor.report.json_report import as_json

        told = {
            "schema": 1,
            "status": "findings" if failed else "healthy",
            "checks": [
                {
                    "name": one.name,
                    "result": one.result,
                    "seconds": round(one.seconds, 2),
                    "output": redact(one.output[-2000:]) if one in failed else "",
                }
                for one in results
            ],
            "answer": json.loads(as_json(answer)) if answer else None,
        }
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    elif broken and answer:
        last = redact(broken.output.strip().splitlines()[-1])[: width()]
        sys.stdout.write(f"\n{broken.name}: {last}\n\n")
        write(answer, given)
    return FAILED if failed else PASSED


def _remember(name: str, environment: Environment, results: list[Checked], folder: Path | None) -> None:
    from doctor.memory.folder import DEFAULT_FOLDER
    from doctor.memory.remember import remember_set

    interpreter = environment.interpreter
    platform = (
        f"{interpreter.sys_platform}-{interpreter.machine}, Python {interpreter.version}" if interpreter else "unknown"
    )
    pins = tuple(f"{one.name}=={one.version}" for one in environment.installed if one.version and not one.origin)
    checked = ", ".join(one.name for one in results if one.result == "passed")
    seconds = sum(one.seconds for one in results)
    try:
        fact = remember_set(name, pins, platform, checked, folder or DEFAULT_FOLDER, seconds=seconds)
    except OSError as error:
        raise InputError(f"the memory can't be written: {error.strerror or error}") from None
    sys.stderr.write(f"remembered as {fact.id}: good for {name}\n")


def _parser() -> argparse.ArgumentParser:
    made = parser("smoke", _DESCRIPTION, "[PACKAGE ...] [--python PATH] [--remember NAME]")
    made.add_argument("package", nargs="*", metavar="PACKAGE", help="distributions or modules to import")
    add_python(made)
    made.add_argument("--remember", metavar="NAME", help="keep what is installed as a known-good set, where all passed")
    made.add_argument("--memory", type=Path, metavar="FOLDER", help="folder of the memory (artifacts/doctor/memory)")
    made.add_argument("--timeout", type=_seconds, default=180.0, metavar="SECONDS", help="that a check may take (180)")
    add_facts(made)
    add_output(made)
    return made


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _checks(environment: Environment, packages: list[str]) -> Iterator[tuple[str, str]]:
    """Yield names and sources of the checks, an import before what uses it."""
    here = {name: module for name, module in _KNOWN.items() if environment.find(name)}
    wanted = {name: _module(environment, name) for name in packages} if packages else here
    for module in wanted.values():
        yield f"import {module}", f"import {module}"
    if packages and not {"torch", "transformers", "tokenizers"} & set(packages):
        return
    if "torch" in here and "torch" in wanted:
        yield "torch: product of matrices on the CPU", _MATMUL.format(device="cpu")
        yield "torch: product of matrices on each GPU", _CUDA_MATMUL
    if "transformers" in wanted and "torch" in here:
        yield "transformers: a tiny Llama, forward and backward", _MODEL
    if "tokenizers" in wanted:
        yield "tokenizers: train, encode, decode", _TOKENIZER


def _module(environment: Environment, name: str) -> str:
    found = environment.find(name)
    if found is None:
        if all(part.isidentifier() for part in name.split(".")):
            return name
        raise InputError(f"{environment.source} has no {name}")
    modules = [one for one in found.modules if not one.startswith("_")]
    plain = found.name.replace("-", "_")
    return _KNOWN.get(found.name) or next(
        (one for one in modules if one.lower() == plain), modules[0] if modules else plain
    )


def _run(python: str, name: str, code: str, timeout: float) -> Checked:
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="doctor-smoke-") as folder:
        try:
            done = subprocess.run([python, "-c", code], cwd=folder, env=variables, capture_output=True, text=True,
                                  errors="replace", timeout=timeout, stdin=subprocess.DEVNULL)  # fmt: skip
        except subprocess.TimeoutExpired:
            return Checked(name, "too long", time.monotonic() - begun, f"{name} took longer than {timeout:g} seconds")
        except OSError as error:
            raise PatientError(f"{python} can't be run: {error.strerror or error}") from None
    seconds = time.monotonic() - begun
    if done.returncode == 0:
        return Checked(name, "passed", seconds)
    if done.returncode == _NOTHING_THERE:
        return Checked(name, "not here", seconds)
    said = f"\nSegmentation fault (signal {-done.returncode})" if done.returncode < 0 else ""
    return Checked(name, "failed", seconds, f"{done.stdout}\n{done.stderr}{said}"[-200_000:])
