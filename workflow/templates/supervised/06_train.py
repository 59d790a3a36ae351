"""Trains an adapter; goes on from the last checkpoint, with the optimizer's state, after whatever has stopped it."""

import argparse
import math
import random

import tinker

from tinker_service import append_row, datum, loss_of, lost_connections, read_rows, service, tell, write_rows

parser = argparse.ArgumentParser()
parser.add_argument("model")
for name, kind in (("steps", int), ("batch", int), ("rate", float), ("rank", int), ("every", int)):
    parser.add_argument(f"--{name}", type=kind, required=True)
words = parser.parse_args()

METRICS, CHECKPOINTS = "results/metrics.jsonl", "results/checkpoints.jsonl"
settings = vars(words)
rows = read_rows("data/train.jsonl")
saved = [one for one in read_rows(CHECKPOINTS) if one["settings"] == settings]
begin = saved[-1]["step"] if saved else 0
# What was logged after the checkpoint is done again.
write_rows(METRICS, [row for row in read_rows(METRICS) if row["step"] <= begin] if saved else [])
write_rows(CHECKPOINTS, saved)


def batch_of(step):
    """Return the rows of a step: the same whenever it is done."""
    epoch, place = divmod(step * words.batch, len(rows))
    order = [*random.Random(epoch).sample(rows, len(rows)), *random.Random(epoch + 1).sample(rows, len(rows))]
    return order[place : place + words.batch]


with lost_connections(), service(words.model) as client:
    if saved:
        training = client.create_training_client_from_state_with_optimizer(saved[-1]["path"]).result()
        print(f"goes on at step {begin}")
    else:
        training = client.create_lora_training_client(base_model=words.model, rank=words.rank, seed=0).result()
    tokenizer = training.get_tokenizer()
    for step in range(begin, words.steps):
        data = [datum(tokenizer, row) for row in batch_of(step)]
        rate = words.rate * min(1.0, (step + 1) / 10) * (1 - step / words.steps)
        forward = training.forward_backward(data, "cross_entropy")
        update = training.optim_step(tinker.AdamParams(learning_rate=rate))
        loss = loss_of(forward.result(), data)
        update.result()
        append_row(METRICS, {"step": step + 1, "loss": loss, "rate": rate})
        tell(done=step + 1, total=words.steps, unit="steps", loss=loss)
        if not math.isfinite(loss):
            raise SystemExit(f"step {step + 1}: the loss is {loss}; lower the learning rate")
        if (step + 1) % words.every == 0 or step + 1 == words.steps:
            path = training.save_state(f"{step + 1:06d}").result().path
            sampler = training.save_weights_for_sampler(f"sampler-{step + 1:06d}").result().path
            append_row(CHECKPOINTS, {"step": step + 1, "path": path, "sampler": sampler, "settings": settings})
            print(f"step {step + 1}/{words.steps} loss {loss:.4f}, saved")
