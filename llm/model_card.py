"""The README.md of an exported model: what it is, how it is used, what it was trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from constants import command
from llm.base_model import SMOLLM2, TINY, BaseModel

_OF_ADAPTER = """from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this one
tokenizer = AutoTokenizer.from_pretrained(folder)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), folder)"""
_OF_MODEL = """from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this one
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)"""
_ASK = """chat = [{"role": "user", "content": "Hello"}]
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=100)[0][prompt["input_ids"].shape[1] :]))"""


TOLD_SETTINGS = ("trained", "epochs", "batch_size", "learning_rate", "seed")  # of the training


def model_card(base: BaseModel, kind: str, facts: Mapping[str, str]) -> str:
    """Write a model card.

    Args:
        base: the base model.
        kind: `adapter`, `merged` (an adapter in its base), or `model` (all weights were trained).
        facts: name and value of what was trained with, and what came of it.

    Returns:
        Markdown.
    """
    on_disk, on_hub = Path(base.source).expanduser().exists(), False
    head = ["---", f"library_name: {'peft' if kind == 'adapter' else 'transformers'}", "pipeline_tag: text-generation"]
    if base.licence:
        head.append(f"license: {base.licence}")
    if "/" in base.source and not on_disk:
        on_hub = True
        head.append(f"base_model: {base.source}")
    name = Path(base.source).name if on_disk else base.source
    what = {
        "adapter": f"A LoRA adapter for {base.source}: its changes to that model, to be loaded over it.",
        "merged": f"{base.source} with a LoRA adapter merged into its weights: a whole model.",
        "model": f"{base.source}, all of whose weights were trained.",
    }[kind]
    lines = [*head, "---", "", f"# {name}, fine-tuned", "", what, "", "## Use", ""]
    lines += [f"`{command('train')} --chat FOLDER` of Menagerie talks with it.{_transformers_note(base, kind)}", ""]
    if kind != "adapter" or on_hub or (on_disk and Path(base.source).is_dir()):
        code = _OF_ADAPTER.format(base=base.source) if kind == "adapter" else _OF_MODEL
        lines += ["```python", code, "", _ASK, "```", ""]
    lines += ["## Training", "", "| | |", "|---|---|", f"| base model | {base.source} |"]
    lines.append(f"| digest of its weights | {base.digest} |")
    lines += [f"| licence | {base.licence} |"] if base.licence else []
    lines += [f"| {_cell(key.replace('_', ' '))} | {_cell(value)} |" for key, value in facts.items() if value]
    return "\n".join([*lines, ""])


def data_fact(account: Mapping[str, Any]) -> str:
    """Say of what data an account of rows is (`data.token_rows.RowAccount.state`).

    Args:
        account: its plain form, as metrics.json has it.
    """
    lost = account["rows_read"] - account["rows_used"]
    rows = f"{account['rows_used']:,} rows" + (f" of {account['rows_read']:,}" if lost else "")
    return f"{account['source']}; {rows}, {account['trained_tokens']:,} trained tokens; SHA-256 {account['sha256']}"


def told_figures(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the figures among a run's results as a card tells them.

    Args:
        results: results by name, as metrics.json has them.
    """
    return {name: f"{value:.4g}" for name, value in results.items() if isinstance(value, float)}


def _transformers_note(base: BaseModel, kind: str) -> str:
    if kind == "adapter" and base.source.partition(":")[0] in (SMOLLM2, TINY):
        return (
            f" transformers knows no base model of that name: `{command('train')} --export RUN merge=on` writes a "
            "whole model that it loads."
        )
    return ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
