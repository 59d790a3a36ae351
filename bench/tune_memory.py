"""Estimated memory of tuning against measured peaks, of models of random weights: `python bench/tune_memory.py`.

Each is trained for a step by `train.py LanguageModel` in a process of its own, whose peak of resident memory is
read. What the process takes before it has a model is that of a model of 4,000 weights.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agents.models.estimate import TuningPlan, memory_of, tokens_per_second  # noqa: E402  # behind the path
from agents.models.machine import measured_flops  # noqa: E402
from agents.models.open_model import OpenModel  # noqa: E402

TOKENS, ROWS = 255, 8  # of a row; rows of a batch
# width, layers, heads, kv heads, head dim, mlp width, rank
SIZES = (
    (256, 4, 8, 4, 32, 1024, 16), (512, 8, 8, 4, 64, 1536, 16), (512, 16, 8, 8, 64, 2048, 64),
    (1024, 4, 16, 4, 64, 4096, 16), (768, 12, 12, 12, 64, 3072, 8), (384, 6, 12, 4, 64, 1024, 16),
    (1536, 2, 12, 4, 128, 6144, 16),
)  # fmt: skip


def main() -> None:
    """Measure, and print a line for each model."""
    from llm.base_model import load
    from llm.tiny_model import TINY_SHAPE

    flops = measured_flops()
    with tempfile.TemporaryDirectory() as place:
        text = "x" * (TOKENS - 2)
        row = json.dumps({"text": text})
        (Path(place) / "rows.jsonl").write_text(f"{row}\n" * ROWS)
        (Path(place) / "val.jsonl").write_text(f"{row}\n")
        base = load("tiny")
        floor = None
        for width, layers, heads, kv_heads, head_dim, mlp, rank in ((8, 1, 1, 1, 8, 8, 1), *SIZES):
            folder = Path(place) / f"{width}-{layers}"
            save(folder, base.tokenizer, width, layers, heads, kv_heads, head_dim, mlp, TINY_SHAPE.vocabulary)
            words = [f"base_model={folder}", f"train_data={place}/rows.jsonl", f"val_data={place}/val.jsonl",
                     f"artifacts_dir={folder}/out", "epochs=1", f"batch_size={ROWS}", f"lora_rank={rank}",
                     "sample_count=0", "plot_at_end=off", "device=cpu"]  # fmt: skip
            done = subprocess.run([sys.executable, str(ROOT / "train.py"), "LanguageModel", *words],
                                  capture_output=True, text=True, check=False)  # fmt: skip
            if done.returncode:
                sys.exit(done.stderr)
            (metrics,) = folder.glob("out/models/*/runs/*/metrics.json")
            summary = json.loads(metrics.read_text())["summary"]
            peak = summary["peak_memory_bytes"]
            if floor is None:
                floor = peak
                print(f"a process without a model: {floor / 2**20:.0f} MiB")
                continue
            model = OpenModel("here", "llama", "mit", True, "", (), 2048, layers, width, heads, kv_heads, head_dim, mlp,
                              TINY_SHAPE.vocabulary, True, 0)  # fmt: skip
            plan = TuningPlan(TOKENS * ROWS, rank)
            estimate = memory_of(model, plan).total
            whole = (estimate + floor) / peak - 1
            speed = tokens_per_second(model, plan, TOKENS, flops)
            own, rate = peak - floor, summary["tokens_per_second"]
            print(f"{model.parameters / 1e6:.1f}M parameters, width {width}, {layers} layers, rank {rank}:")
            print(f"  estimated {estimate / 2**20:.0f} MiB, measured {own / 2**20:.0f} MiB ({estimate / own - 1:+.0%})")
            print(f"  with the process {whole:+.0%}")
            print(f"  estimated {speed:,.0f} tokens/s, measured {rate:,.0f}", flush=True)


def save(folder: Path, tokenizer, width, layers, heads, kv_heads, head_dim, mlp, vocabulary) -> None:
    """Write a llama of random weights as transformers does."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, head_dim=head_dim, intermediate_size=mlp, max_position_embeddings=2048,
        tie_word_embeddings=True, bos_token_id=256, eos_token_id=257,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
