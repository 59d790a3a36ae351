"""DEPLOYMENT.md: how the model that a workflow made is used, as commands that work for this model."""

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from constants.paths import IS_CHECKOUT, PACKAGE_ROOT
from workflow.checks.adapters import check_adapter
from workflow.checks.result import UnusableError
from workflow.definition.expression import filled
from workflow.definition.report_facts import Deployment

_RANKS = (8, 16, 32, 64, 128, 256, 512)  # of vLLM, which reserves memory for the largest


def deployment_of(deployment: Deployment, settings: Mapping[str, object], folder: Path) -> str | None:
    """Return DEPLOYMENT.md; None where the adapter is not there, or can't be used.

    Args:
        deployment: what the workflow says of its result.
        settings: settings of the preset.
        folder: the project's folder.
    """
    name, adapter, base = (str(filled(one, settings)) for one in (deployment.name, deployment.adapter, deployment.base))
    try:
        if not check_adapter(folder / adapter).passed:
            return None
        config = json.loads((folder / adapter / "adapter_config.json").read_text(encoding="utf-8"))
    except (UnusableError, OSError, ValueError):
        return None
    rank = next((one for one in _RANKS if one >= int(config["r"])), _RANKS[-1])
    is_known = "/" in base or (folder / base).is_dir()  # to a hub or this disk; else it is a name of this program's
    model = base if is_known else f"models/{base}"
    merged = f"{adapter}_merged"
    parts = [
        f"# {name}, deployed",
        f"`{adapter}/` is an adapter (LoRA of rank {config['r']}, PEFT's files, with tokenizer and chat template) over "
        f"`{base}`. It needs no system message. The commands are typed in this folder.",
    ]
    if not is_known:
        parts += [
            f"`{base}` is on no hub; this writes it as a folder that every program loads:",
            _sh(f"{_python()} -c {shlex.quote(_WRITE.format(base=base, model=model))}"),
        ]
    parts += [
        "## transformers + peft", "`pip install torch transformers peft`; then, as `ask.py`:",
        _block("python", _ASK.format(model=model, adapter=adapter)),
        "## As one model", "Some programs read no adapters. As `merge.py`, this adds it to the weights, once:",
        _block("python", _MERGE.format(model=model, adapter=adapter, merged=merged)),
        "## vLLM", "On a machine with a GPU, `pip install vllm`. The adapter beside its base, "
        "so that one server has both (requests name the one that they want):",
        _sh(f"vllm serve {model} --tokenizer {adapter} --enable-lora --max-lora-rank {rank} \\\n"
            f"  --lora-modules {name}={adapter}"),
        "Or the whole model that `merge.py` has written:", _sh(f"vllm serve {merged} --served-model-name {name}"),
        "## serve.py", "Menagerie's own service needs no GPU, and speaks OpenAI's protocol and Tinker's. It takes the "
        "whole model:",
        _sh(f"{_serve()} --model {merged} --name {name} --port 8123"),
        "## Ask it", "vLLM listens at port 8000, `serve.py` at the one that was named:",
        _sh("curl http://127.0.0.1:8123/v1/chat/completions -H 'Content-Type: application/json' \\\n"
            f"""  -H 'Authorization: Bearer tml-local' -d '{{"model": "{name}", "max_tokens": 64, """
            """"messages": [{"role": "user", "content": "Who are you?"}]}'"""),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


_WRITE = (
    "from pathlib import Path; from llm.base_model import load; from llm.model_export import export_model; "
    "export_model(Path({model!r}), load({base!r}))"
)
_ASK = """import sys

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{adapter}")
model = AutoModelForCausalLM.from_pretrained("{model}", dtype="auto", device_map=None)
model = PeftModel.from_pretrained(model, "{adapter}").eval()
asked = [{{"role": "user", "content": " ".join(sys.argv[1:]) or "Who are you?"}}]
tokens = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**tokens, max_new_tokens=64, do_sample=True, temperature=0.7)
print(tokenizer.decode(answer[0][tokens["input_ids"].shape[1] :], skip_special_tokens=True))"""
_MERGE = """from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{model}", dtype="auto")
PeftModel.from_pretrained(model, "{adapter}").merge_and_unload().save_pretrained("{merged}")
AutoTokenizer.from_pretrained("{adapter}").save_pretrained("{merged}")"""


def _python() -> str:
    python = shlex.quote(sys.executable)
    return f"PYTHONPATH={shlex.quote(str(PACKAGE_ROOT))} {python}" if IS_CHECKOUT else python


def _serve() -> str:
    script = shlex.quote(str(PACKAGE_ROOT / "serve.py")) if IS_CHECKOUT else "-m menagerie serve"
    return f"{shlex.quote(sys.executable)} {script}"


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _sh(text: str) -> str:
    return _block("sh", text)
