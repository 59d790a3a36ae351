"""Trains an adapter to answer without the prompt; goes on from its last checkpoint, with the optimizer, after any stop.

--check-config works out what the settings mean; --rehearse proves that training can go on from a checkpoint.
"""

import argparse
import math
import random
import re
from collections import deque

import tinker

from distillation import (
    append_rows,
    datum,
    digest_of,
    digest_of_file,
    prompt_tokens,
    read_rows,
    service,
    tell,
    tokenizer,
    write_json,
    write_rows,
)

TRAIN, HELD_OUT = "data/train.jsonl", "data/held_out.jsonl"
METRICS, CHECKPOINTS = "training_logs/metrics.jsonl", "checkpoints/checkpoints.jsonl"
WARM_UP, SEED, VALIDATED = 0.05, 0, 500  # share of the steps; of order and weights; rows of the validation loss
_RATES = ((1, 2e-4, 3e-3), (10, 3e-5, 1e-3), (math.inf, 1e-5, 5e-4))  # billions of parameters; rates that adapters bear

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
for name, kind in (("steps", int), ("batch", int), ("rate", float), ("rank", int), ("every", int)):
    parser.add_argument(f"--{name}", type=kind, required=True)
parser.add_argument("--check-config", action="store_true")
parser.add_argument("--rehearse", action="store_true")
words = parser.parse_args()
tokenizer = tokenizer()


def loss_of(answer, data):
    """Return the loss of a token, in nats, from what forward or forward_backward has answered."""
    return answer.metrics["loss:sum"] / sum(sum(one.loss_fn_inputs["weights"].data) for one in data)


def batch_of(step):
    """Return the rows of a step: the same whenever it is done. Each row comes once before any comes again."""
    found = []
    for place in range(step * words.batch, (step + 1) * words.batch):
        epoch, within = divmod(place, len(rows))
        found.append(rows[order_of(epoch)[within]])
    return found


def order_of(epoch):
    """Return the order of an epoch's rows."""
    if epoch not in _orders:
        _orders[epoch] = random.Random(f"{SEED} {epoch}").sample(range(len(rows)), len(rows))
    return _orders[epoch]


_orders = {}


def rate_of(step):
    """Return the learning rate of a step: it rises over the warm-up, then falls as a cosine does."""
    warm = max(1, round(WARM_UP * words.steps))
    if step < warm:
        return words.rate * (step + 1) / warm
    return words.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(words.steps - warm, 1)))


def begun(training, step):
    """Begin a step; what it answers is waited for while the next is under way."""
    data = [datum(tokenizer, row) for row in batch_of(step)]
    forward = training.forward_backward(data, "cross_entropy")
    return step, data, forward, training.optim_step(tinker.AdamParams(learning_rate=rate_of(step)))


def check_config():
    """Write results/training_plan.json."""
    lengths = [len(prompt_tokens(tokenizer, row["asked"])) + len(row["tokens"]) for row in rows]
    size = re.search(r"(\d+(?:\.\d+)?)[bB]\b", words.model)
    billions = float(size[1]) if size else 0.1
    low, high = next((low, high) for most, low, high in _RATES if billions <= most)
    plan = {
        "rows": len(rows), "held_out": len(held_out), "steps": words.steps, "batch": words.batch,
        "epochs": round(words.steps * words.batch / len(rows), 2),
        "warm_up_steps": max(1, round(WARM_UP * words.steps)),
        "tokens_a_row": round(sum(lengths) / len(lengths), 1), "longest_row": max(lengths),
        "tokens": round(words.steps * words.batch * sum(lengths) / len(lengths)),
        "rank": words.rank, "rate": words.rate, "rates_that_are_usual": [low, high],
        "checkpoints": math.ceil(words.steps / words.every),
    }  # fmt: skip
    write_json("results/training_plan.json", plan)
    print(f"{words.steps:,} steps of {words.batch} rows: {plan['epochs']} epochs, {plan['tokens']:,} tokens")
    if not low <= words.rate <= high:
        print(f"a learning rate of {words.rate:g} is unusual: adapters of such a model bear {low:g} to {high:g}")
    if plan["epochs"] > 10:
        print("each row comes more than ten times; fewer steps, or more examples, would do")
    if words.batch > len(rows):
        raise SystemExit(f"a batch of {words.batch} is more than the {len(rows)} rows that there are; lower `batch`")


def rehearse():
    """Write results/rehearsal.json: steps after a checkpoint are the same whether one goes on or begins from it."""

    def steps_from(training, first, count):
        steps = [begun(training, step) for step in range(first, first + count)]
        losses = [loss_of(forward.result(), data) for _, data, forward, _ in steps]
        for *_, update in steps:
            update.result()
        return losses

    with service(words.model) as client:
        training = client.create_lora_training_client(base_model=words.model, rank=words.rank, seed=SEED).result()
        before = steps_from(training, 0, 1)
        path = training.save_state("rehearsal", ttl_seconds=3600).result().path
        went_on = steps_from(training, 1, 2)
        tell(done=1, total=2, unit="rehearsals")
        again = steps_from(client.create_training_client_from_state_with_optimizer(path).result(), 1, 2)
        tell(done=2, total=2, unit="rehearsals")
    apart = max(abs(one - other) for one, other in zip(went_on, again, strict=True))
    finite = all(map(math.isfinite, [*before, *went_on, *again]))
    resumes = finite and apart <= 1e-2 * max(went_on)
    losses = {"losses": [*before, *went_on], "losses_after_loading": again}
    write_json("results/rehearsal.json", {"resumes": resumes, "apart": apart, **losses})
    print("; from the checkpoint ".join(", ".join(f"{one:.4f}" for one in each) for each in losses.values()))
    if not resumes:
        raise SystemExit(
            "training from the checkpoint is another than training on: it could not be resumed after a stop"
        )


def train():
    """Train, with a checkpoint every so many steps and at the end."""
    settings = digest_of(words.model, words.steps, words.batch, words.rate, words.rank, words.every,
                         digest_of_file(TRAIN), digest_of_file(HELD_OUT))[:16]  # fmt: skip
    saved = [one for one in read_rows(CHECKPOINTS) if one["settings"] == settings]
    begin = saved[-1]["step"] if saved else 0
    # What was logged after the checkpoint is done again.
    write_rows(METRICS, [row for row in read_rows(METRICS) if row["step"] <= begin] if saved else [])
    write_rows(CHECKPOINTS, saved)
    if begin == words.steps:
        print("all steps are done")
        return
    validated = [datum(tokenizer, row) for row in held_out[:VALIDATED]]
    trained = 0
    with service(words.model) as client:
        if saved:
            training = client.create_training_client_from_state_with_optimizer(saved[-1]["path"]).result()
            print(f"goes on at step {begin}")
        else:
            training = client.create_lora_training_client(base_model=words.model, rank=words.rank, seed=SEED).result()
        under_way = deque()

        def settle():
            nonlocal trained
            step, data, forward, update = under_way.popleft()
            loss = loss_of(forward.result(), data)
            update.result()
            tokens = sum(one.model_input.length for one in data)
            trained += tokens
            append_rows(METRICS, [{"step": step + 1, "loss": loss, "rate": rate_of(step), "tokens": tokens}])
            tell(done=step + 1, total=words.steps, unit="steps", loss=loss, tokens_trained=trained)
            if not math.isfinite(loss):
                raise SystemExit(f"step {step + 1}: the loss is {loss}; lower the learning rate")

        for step in range(begin, words.steps):
            under_way.append(begun(training, step))
            if len(under_way) > 1:
                settle()
            if (step + 1) % words.every == 0 or step + 1 == words.steps:
                settle()
                path = training.save_state(f"{step + 1:06d}").result().path
                sampler = training.save_weights_for_sampler(f"sampler-{step + 1:06d}").result().path
                loss = loss_of(training.forward(validated, "cross_entropy").result(), validated)
                append_rows(CHECKPOINTS, [{"step": step + 1, "path": path, "sampler": sampler, "validation_loss": loss,
                                           "settings": settings}])  # fmt: skip
                tell(checkpoint=path)
                print(f"step {step + 1}/{words.steps}: saved; on held-out questions a token costs {loss:.4f} nats")


rows, held_out = read_rows(TRAIN), read_rows(HELD_OUT)
if words.check_config:
    check_config()
elif words.rehearse:
    rehearse()
else:
    train()
