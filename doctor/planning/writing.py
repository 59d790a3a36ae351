"""A plan as what is pasted: a PEP 723 header, uv commands, Colab cells, a smoke test."""

from doctor.planning.known_sets import KnownSet
from doctor.planning.plan import Plan

_INDEX = "https://download.pytorch.org/whl/"
_DATA = ("tokenizers", "huggingface-hub", "datasets", "numpy", "unsloth-zoo", "torchvision", "torchaudio")
# What is imported first: unsloth patches the others.
_ORDER = ("unsloth", "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "vllm", "sglang", "axolotl",
          "llamafactory", "deepspeed", "mlx_lm", "llama_cpp", "bespokelabs")  # fmt: skip
_MODULES = {"mlx-lm": "mlx_lm", "llama-cpp-python": "llama_cpp", "bespokelabs-curator": "bespokelabs"}


def header(chosen: KnownSet) -> str:
    """Return the PEP 723 block of a script or marimo notebook: `uv run SCRIPT` makes its environment."""
    lines = [f'requires-python = ">={chosen.python_version},{_below(chosen.python)}"', "dependencies = ["]
    lines += [f'    "{pin}",' for pin in chosen.pins]
    lines += ["]", f"# {chosen.id}: {chosen.confirmed}."]
    if chosen.index:
        lines += ["", "[[tool.uv.index]]", 'name = "pytorch"', f'url = "{_INDEX}{chosen.index}"', "explicit = true", "",
                  "[tool.uv.sources]", *(f'{name} = {{ index = "pytorch" }}' for name in chosen.versions
                                         if name in ("torch", "torchvision", "torchaudio"))]  # fmt: skip
    return "\n".join(["# /// script", *(f"# {line}".rstrip() for line in lines), "# ///"]) + "\n"


def _below(python: str) -> str:
    return next((part for part in python.split(",") if part.startswith("<")), "<4")


def uv_lines(chosen: KnownSet) -> list[str]:
    """Return the commands that make an environment of its own, by uv."""
    backend = f" --torch-backend={chosen.index}" if chosen.index else ""
    pins = " ".join(f"'{pin}'" for pin in chosen.pins)
    return [f"uv venv --python {chosen.python_version} .venv", f"uv pip install --python .venv{backend} {pins}"]


def pip_lines(chosen: KnownSet) -> list[str]:
    """Return the commands that make an environment of its own, by pip."""
    index = f" --extra-index-url {_INDEX}{chosen.index}" if chosen.index else ""
    pins = " ".join(f"'{pin}'" for pin in chosen.pins)
    return [f"python{chosen.python_version} -m venv .venv", f".venv/bin/python -m pip install{index} {pins}"]


def colab_cells(chosen: KnownSet) -> list[str]:
    """Return the cells of a notebook on Colab or Kaggle; torch and numpy of the image stay where the pins allow it."""
    pins = " ".join(f'"{pin}"' for pin in chosen.without_torch())
    held = "import importlib.metadata as m\n" + (
        'held = [f"{name}=={m.version(name)}" for name in ("torch", "numpy")]  # of the image, made for its driver\n'
        'open("/tmp/held.txt", "w").write("\\n".join(held))'
    )
    return [held, f"%pip install -q -c /tmp/held.txt {pins}", "# then: Runtime > Restart session", smoke_test(chosen)]


def smoke_test(chosen: KnownSet) -> str:
    """Return a test of a set: imports in the order that works, a product on the GPU, one tiny model."""
    modules = {_MODULES.get(name, name.replace("-", "_")) for name in chosen.versions}
    imported = [name for name in _ORDER if name in modules]
    lines = [f"import {name}" for name in imported]
    if "torch" in chosen.versions:
        if "torch" not in imported:
            lines.append("import torch")
        device = '"cuda"' if "nvidia" in chosen.kinds else '"mps"' if "mac" in chosen.kinds else '"cpu"'
        lines += [f"x = torch.ones(8, 8, device={device})", "assert (x @ x).sum().item() == 512",
                  "print(torch.__version__, torch.version.cuda)"]  # fmt: skip
    if "transformers" in chosen.versions and "torch" in chosen.versions and "finetune" in chosen.goals:
        lines += [
            "from transformers import LlamaConfig, LlamaForCausalLM",
            "model = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64,",
            "         num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)).to(x.device)",
            "ids = torch.arange(16, device=x.device)[None]",
            "model(input_ids=ids, labels=ids).loss.backward()",
        ]
    return "\n".join([*lines, 'print("works")'])


def script(plan: Plan) -> str:
    """Return a marimo notebook with the set as its header and the smoke test as its first cell: a script too."""
    assert plan.chosen is not None
    body = smoke_test(plan.chosen).replace("\n", "\n    ")
    return (
        f"{header(plan.chosen)}\nimport marimo\n\napp = marimo.App()\n\n\n"
        f"@app.cell\ndef smoke():\n    {body}\n    return\n\n\n"
        'if __name__ == "__main__":\n    app.run()\n'
    )
