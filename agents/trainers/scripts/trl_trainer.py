# mypy: ignore-errors
"""Trains by trl (SFT, DPO, GRPO), as agents/trainers/command_trainer.py asks for it; it answers nothing itself.

It runs by the Python of an environment that has trl (`pip install trl peft`) and nothing of this program. What it
leaves in WORK/model is a whole model as `save_pretrained` writes it. Each epoch is a checkpoint, from which a killed
training goes on.
"""

import argparse
import importlib.util
import inspect
import json
import os
import sys
from pathlib import Path

METRICS = "metrics.json"
USUAL = {"learning_rate": "5e-5", "epochs": "3", "batch_size": "8", "seed": "0", "trained": "lora", "lora_rank": "16",
         "lora_alpha": "32", "max_tokens": "128", "num_generations": "4", "beta": "0.1"}  # fmt: skip


def rows_of(path, method, tokenizer):
    """Return the rows as trl takes them."""
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line.strip()]
    done = []
    for row in rows:
        asked, answer = row["messages"][:-1], row["messages"][-1:]
        if method == "sft":
            done.append({"prompt": asked, "completion": answer})
        elif method == "dpo":
            done.append({"prompt": asked, "chosen": answer,
                         "rejected": [{"role": "assistant", "content": row["rejected"]}]})  # fmt: skip
        else:
            done.append({"prompt": asked, "wanted": answer[0]["content"], "id": row["id"]})
    return done


def reward_of(place):
    """Return the user's reward in the form that trl calls."""
    file, _, name = place.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name)

    def reward(prompts, completions, wanted, id, **rest):
        texts = [one[-1]["content"] if isinstance(one, list) else one for one in completions]
        return [float(function(text, {"id": key, "messages": asked, "wanted": right}))
                for text, asked, right, key in zip(texts, prompts, wanted, id, strict=True)]  # fmt: skip

    return reward


def write(path, content):
    """Write a file that is there whole, or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(content), encoding="utf-8")
    os.replace(new, path)


def train(words):
    """Train, or go on."""
    try:
        import trl
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
        from transformers.trainer_utils import get_last_checkpoint
    except ImportError as error:
        sys.exit(f"error: {sys.executable} has no trl ({error}): name the Python of an environment that has it as "
                 "`python` of the trainer; `pip install trl peft` makes one")  # fmt: skip
    settings = USUAL | json.loads(Path(words.settings).read_text(encoding="utf-8"))
    work, base = Path(words.work), settings["base_model"]
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    rows = rows_of(words.rows, words.method, tokenizer)
    held = rows[: len(rows) // 10] if words.method != "grpo" else []
    planned = int(settings["epochs"])
    kept = work / METRICS
    state = json.loads(kept.read_text()) if kept.exists() else {"epochs": 0, "planned": planned, "history": {}}
    state |= {"state": "running", "rows": {"used": len(rows), "left_out": 0}}

    class Keep(TrainerCallback):
        """Keeps the numbers of each epoch, and stops where it is asked to."""

        def __init__(self):
            self.losses, self.noted = [], {}

        def on_log(self, arguments, control_state, control, logs=None, **rest):
            if logs and "loss" in logs:
                self.losses.append(logs["loss"])

        def on_evaluate(self, arguments, control_state, control, metrics=None, **rest):
            if metrics and "eval_loss" in metrics:
                self.noted["val_loss"] = metrics["eval_loss"]

        def on_save(self, arguments, control_state, control, **rest):
            done = round(control_state.epoch or 0)
            numbers = {"train_loss": sum(self.losses) / max(1, len(self.losses)), **self.noted}
            for name, value in numbers.items():
                state["history"].setdefault(name, [])
                state["history"][name] = [*state["history"][name][: done - 1], value]
            self.losses.clear()
            state["epochs"] = done
            write(kept, state)
            told = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            sys.stdout.write(f"epoch {done}/{planned}: {told}\n")
            sys.stdout.flush()
            if words.until and done >= words.until:
                control.should_training_stop = True
            return control

    config, trainer = {
        "sft": (trl.SFTConfig, trl.SFTTrainer), "dpo": (trl.DPOConfig, trl.DPOTrainer),
        "grpo": (trl.GRPOConfig, trl.GRPOTrainer),
    }[words.method]  # fmt: skip
    wanted = {
        "output_dir": str(work / "checkpoints"), "num_train_epochs": planned, "save_strategy": "epoch",
        "eval_strategy": "epoch" if held else "no", "logging_steps": 1, "report_to": [], "save_total_limit": 2,
        "per_device_train_batch_size": int(settings["batch_size"]), "learning_rate": float(settings["learning_rate"]),
        "seed": int(settings["seed"]), "disable_tqdm": True, "lr_scheduler_type": "cosine", "warmup_ratio": 0.05,
        "beta": float(settings["beta"]), "num_generations": int(settings["num_generations"]),
        "max_completion_length": int(settings["max_tokens"]), "completion_only_loss": True, "bf16": False,
    }  # fmt: skip
    known = inspect.signature(config).parameters  # names differ between versions and methods
    arguments = config(**{name: value for name, value in wanted.items() if name in known})
    more = {"reward_funcs": reward_of(words.reward)} if words.method == "grpo" else {}
    if settings["trained"] == "lora" and importlib.util.find_spec("peft"):
        from peft import LoraConfig

        more["peft_config"] = LoraConfig(r=int(settings["lora_rank"]), lora_alpha=float(settings["lora_alpha"]),
                                         target_modules="all-linear", task_type="CAUSAL_LM")  # fmt: skip
    made = trainer(model=model, args=arguments, train_dataset=Dataset.from_list(rows[len(held) :]),
                   eval_dataset=Dataset.from_list(held) if held else None, processing_class=tokenizer,
                   callbacks=[Keep()], **more)  # fmt: skip
    last = get_last_checkpoint(arguments.output_dir) if Path(arguments.output_dir).is_dir() else None
    made.train(resume_from_checkpoint=last)
    whole = made.model.merge_and_unload() if hasattr(made.model, "merge_and_unload") else made.model
    new = work / "model.new"
    whole.save_pretrained(new)
    tokenizer.save_pretrained(new)
    if (work / "model").exists():
        import shutil

        shutil.rmtree(work / "model")
    new.rename(work / "model")
    state["state"] = "finished" if state["epochs"] >= planned else "interrupted"
    write(kept, state)


def main():
    """Do what the words ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=("sft", "dpo", "grpo"), default="sft")
    parser.add_argument("--reward", default="")
    parser.add_argument("verb", choices=("train",))
    for name in ("settings", "rows", "work"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--until", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
