"""Trains, answers and exports by the Tinker API, as agents/trainers/command_trainer.py asks for it.

The address is --address, TINKER_BASE_URL, or the hosted service; the key is in TINKER_API_KEY. Each epoch is a
checkpoint of the service, weights and optimizer: a killed training goes on from the last.
"""

import argparse
import json
import math
import os
import random
import shutil
import socket
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tinker

_METRICS = "metrics.json"
_HELD_OUT = 0.1  # share of the rows whose loss is measured after each epoch, where there are ten and more
_USUAL = {"learning_rate": "5e-4", "epochs": "3", "batch_size": "8", "lora_rank": "16", "seed": "0"}
_KEY = "tml-local"  # of a service of our own, which asks for none


def main() -> None:
    """Do what the words ask for; a fault of the service is told in a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default=os.environ.get("TINKER_BASE_URL"))
    parser.add_argument("verb", choices=("train", "answer", "export"))
    for name in ("settings", "rows", "work", "model", "asked", "said", "out"):
        parser.add_argument(f"--{name}", type=str if name == "model" else Path)
    parser.add_argument("--until", type=int, default=0)
    parser.add_argument("--max-tokens", type=int, default=128)
    words = parser.parse_args()
    if not words.address and not os.environ.get("TINKER_API_KEY"):
        sys.exit("error: Tinker needs TINKER_API_KEY, or an address: TINKER_BASE_URL, or `address` of the trainer")
    if words.address:
        _require_reachable(words.address)
    try:
        key = os.environ.get("TINKER_API_KEY") or _KEY
        service = tinker.ServiceClient(api_key=key, **({"base_url": words.address} if words.address else {}))
        {"train": _train, "answer": _answer, "export": _export}[words.verb](words, service)
    except (tinker.APIError, ConnectionError) as error:
        sys.exit(f"error: Tinker at {words.address or 'its hosted service'}: {type(error).__name__}: {error}")


def _require_reachable(address: str) -> None:
    """Refuse an address at which nothing answers: the client would try it again for ever."""
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), 30):
            pass
    except OSError as error:
        sys.exit(f"error: Tinker at {address} can't be reached: {error.strerror or error}")


# ------------------------------------------------------------------------------------------------------------ training


def _train(words: argparse.Namespace, service: tinker.ServiceClient) -> None:
    settings = _USUAL | json.loads(words.settings.read_text(encoding="utf-8"))
    planned, size = int(settings["epochs"]), int(settings["batch_size"])
    kept = words.work / _METRICS
    state = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {
        "epochs": 0, "planned": planned, "history": {"train_loss": [], "val_loss": []}, "state": "running",
        "base_model": settings["base_model"],
    }  # fmt: skip
    if "path" in state:
        training = service.create_training_client_from_state_with_optimizer(state["path"]).result()
    else:
        training = service.create_lora_training_client(
            base_model=settings["base_model"], rank=int(settings["lora_rank"]), seed=int(settings["seed"])
        ).result()
    data, left_out = _data(training.get_tokenizer(), _rows(words.rows))
    held = data[: round(_HELD_OUT * len(data))]
    data = data[len(held) :]
    if not data:
        sys.exit(f"error: no row of {words.rows} can be trained on: the template puts answers elsewhere")
    state["rows"] = {"used": len(data) + len(held), "left_out": left_out}
    steps = math.ceil(len(data) / size)
    while state["epochs"] < (words.until or planned):
        epoch = state["epochs"]
        order = random.Random(f"{settings['seed']} {epoch}").sample(data, len(data))
        total = weight = 0.0
        for step in range(steps):
            rate = _rate(float(settings["learning_rate"]), epoch * steps + step, planned * steps)
            batch = order[step * size : (step + 1) * size]
            forward = training.forward_backward(batch, "cross_entropy")
            update = training.optim_step(tinker.AdamParams(learning_rate=rate))
            total, weight = total + forward.result().metrics["loss:sum"], weight + _weight(batch)
            update.result()
        if not math.isfinite(total):
            sys.exit(f"error: the loss is not finite in epoch {epoch + 1}")
        state["history"]["train_loss"].append(total / weight)
        if held:
            loss = training.forward(held, "cross_entropy").result().metrics["loss:sum"] / _weight(held)
            state["history"]["val_loss"].append(loss)
        # A name of its own for each attempt: what a killed one has left is not written over.
        name = f"tune-{epoch + 1}-{time.time_ns()}"
        state.update(
            epochs=epoch + 1, path=training.save_state(name).result().path,
            sampler=training.save_weights_for_sampler(f"{name}-sampler").result().path,
            state="finished" if epoch + 1 == planned else "interrupted",
        )  # fmt: skip
        _write(kept, state)
        told = ", ".join(f"{key} {values[-1]:.4g}" for key, values in state["history"].items() if values)
        sys.stdout.write(f"epoch {epoch + 1}/{planned}: {told}\n")
        sys.stdout.flush()


def _rate(highest: float, step: int, steps: int) -> float:
    """Rise over a twentieth of the steps, then fall along half a cosine."""
    warm = max(1, round(0.05 * steps))
    if step < warm:
        return highest * (step + 1) / warm
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _data(tokenizer: Any, rows: Sequence[dict[str, Any]]) -> tuple[list[tinker.Datum], int]:
    """Return rows as the service trains on them, of each its answer alone, and how many can't be used."""
    done = []
    for row in rows:
        prompt = _ids(tokenizer, row["messages"][:-1], True)
        whole = _ids(tokenizer, row["messages"], False)
        if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
            continue
        weights = [0.0] * (len(prompt) - 1) + [1.0] * (len(whole) - len(prompt))
        inputs = {"target_tokens": whole[1:], "weights": weights}
        done.append(tinker.Datum(model_input=tinker.ModelInput.from_ints(whole[:-1]), loss_fn_inputs=inputs))
    return done, len(rows) - len(done)


def _ids(tokenizer: Any, messages: Sequence[dict[str, Any]], ask: bool) -> list[int]:
    found = tokenizer.apply_chat_template(list(messages), add_generation_prompt=ask, tokenize=True, return_dict=False)
    return [int(one) for one in found]


def _weight(data: Sequence[tinker.Datum]) -> float:
    return float(sum(sum(one.loss_fn_inputs["weights"].data) for one in data))


# ------------------------------------------------------------------------------------------------- answers and export


def _answer(words: argparse.Namespace, service: tinker.ServiceClient) -> None:
    kept = Path(words.model) / _METRICS
    state = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {"base_model": words.model}
    given = {"model_path": state["sampler"]} if "sampler" in state else {"base_model": state["base_model"]}
    sampler = service.create_sampling_client(**given).result()
    # By a training client, which is told the tokenizer by the service: a sampling client asks the hub for the model's.
    told = service.create_lora_training_client(base_model=state["base_model"], rank=1).result()
    tokenizer = told.get_tokenizer()
    params = tinker.SamplingParams(max_tokens=words.max_tokens, temperature=0.0)
    rows = _rows(words.asked)
    prompts = [tinker.ModelInput.from_ints(_ids(tokenizer, row["messages"], True)) for row in rows]
    futures = [sampler.sample(prompt=one, num_samples=1, sampling_params=params) for one in prompts]
    lines = []
    for row, future in zip(rows, futures, strict=True):
        said = future.result().sequences[0]
        message = {"role": "assistant", "content": tokenizer.decode(said.tokens, skip_special_tokens=True)}
        lines.append(json.dumps({**row, "messages": [*row["messages"], message], "finish": said.stop_reason}))
    words.said.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _export(words: argparse.Namespace, service: tinker.ServiceClient) -> None:
    state = json.loads((Path(words.model) / _METRICS).read_text(encoding="utf-8"))
    training = service.create_training_client_from_state(state["path"]).result()
    kept = training.save_weights_external(f"tune-export-{time.time_ns()}", ttl_seconds=3600).result().path
    new = words.out.with_name(f".{words.out.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    urls = service.create_rest_client().get_external_weights_urls(kept).result().urls
    for name, url in urls.items():
        with urllib.request.urlopen(url, timeout=600) as answer, (new / Path(name).name).open("wb") as stream:
            shutil.copyfileobj(answer, stream)
    new.rename(words.out)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write a file that is there whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(content), encoding="utf-8")
    new.replace(path)


if __name__ == "__main__":
    main()
