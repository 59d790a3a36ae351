"""A trainer for tests of tuning: it learns answers by heart, some words of each row an epoch, in a blink.

It is called as agents/trainers/command_trainer.py says. Each epoch that it trains is a line of `trained.log`.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path


def words(text):
    return text.lower().split()


def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def write(path, content):
    new = Path(path).with_name(f"{Path(path).name}.new")
    new.write_text(json.dumps(content))
    os.replace(new, path)


def train(options):
    settings, work = json.loads(Path(options.settings).read_text()), Path(options.work)
    if settings.get("fails"):
        sys.exit(f"error: {settings['fails']}")
    planned, rate = int(settings["epochs"]), float(settings["learning_rate"])
    kept = work / "metrics.json"
    state = json.loads(kept.read_text()) if kept.exists() else {"epochs": 0, "planned": planned, "history": {}}
    rows = read(options.rows)
    while state["epochs"] < (options.until or planned):
        time.sleep(float(settings.get("epoch_seconds", 0)))
        done = state["epochs"] + 1
        share = min(1.0, done * rate)
        memory = [[row["messages"][0]["content"], " ".join(words(row["messages"][-1]["content"])[: round(share * 8)])]
                  for row in rows]  # fmt: skip
        write(work / "memory.json", memory)
        loss = max(0.1, 4.0 * (1 - share))
        for name in ("train_loss", "val_loss"):
            state["history"].setdefault(name, []).append(loss)
        tokens = sum(len(words(row["messages"][-1]["content"])) for row in rows)
        state.update(epochs=done, state="finished" if done == planned else "interrupted",
                     rows={"used": len(rows), "answer_tokens": tokens})  # fmt: skip
        with (work / "trained.log").open("a") as stream:
            stream.write(f"{done}\n")
        write(kept, state)
        print(f"epoch {done}/{planned}: train_loss {loss:.3g}", flush=True)


def answer(options):
    path = Path(options.model) / "memory.json"
    memory = json.loads(path.read_text()) if path.exists() else []
    with Path(options.said).open("w") as stream:
        for row in read(options.asked):
            asked = set(words(row["messages"][-1]["content"]))
            near = max(memory, key=lambda one: len(asked & set(words(one[0]))), default=["", "no idea"])
            message = {"role": "assistant", "content": near[1]}
            stream.write(json.dumps({**row, "messages": [*row["messages"], message], "finish": "stop"}) + "\n")


def export(options):
    Path(options.out).mkdir(parents=True)
    (Path(options.out) / "memory.json").write_bytes((Path(options.model) / "memory.json").read_bytes())


parser = argparse.ArgumentParser()
parser.add_argument("verb", choices=("train", "answer", "export"))
for name in ("settings", "rows", "work", "model", "asked", "said", "out"):
    parser.add_argument(f"--{name}")
parser.add_argument("--until", type=int, default=0)
parser.add_argument("--max-tokens", type=int)
words_given = parser.parse_args()
{"train": train, "answer": answer, "export": export}[words_given.verb](words_given)
