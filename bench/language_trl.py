"""trl's SFTTrainer with peft on the rows of bench/language.py, which starts it as a process of its own.

    python bench/language_trl.py FOLDER '{"bf16": false}'

FOLDER holds `model`, `adapter` (peft's files) and `rows.json`. The losses of the steps are written to `trl.json`.
"""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from language_pace import Pace
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Paced(TrainerCallback):
    """Waits for the bench before each step."""

    def __init__(self) -> None:
        self._pace = Pace()

    def on_train_begin(self, args, state, control, **rest) -> None:
        self._pace.wait()

    def on_step_end(self, args, state, control, **rest) -> None:
        self._pace.wait()


def main() -> None:
    """Train."""
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(settings.pop("threads"))
    work = json.loads((folder / "work.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(folder / "adapter"), is_trainable=True)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder / "trl"), per_device_train_batch_size=work["batch_size"], num_train_epochs=1,
            learning_rate=work["learning_rate"], lr_scheduler_type="constant", adam_beta2=0.95,
            train_sampling_strategy="sequential", logging_steps=1, report_to="none", save_strategy="no",
            disable_tqdm=True, use_cpu=True, **settings,
        ),
        train_dataset=Dataset.from_list(json.loads((folder / "rows.json").read_text())),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        callbacks=[Paced()],
    )  # fmt: skip
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    (folder / "trl.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main()
