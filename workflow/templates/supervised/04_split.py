"""A tenth of the rows is held out: those whose prompt has the lowest digests, whatever their order."""

import hashlib

from tinker_service import read_rows, write_rows

rows = read_rows("data/valid.jsonl")
order = sorted(range(len(rows)), key=lambda place: hashlib.sha256(rows[place]["prompt"].encode()).hexdigest())
held_out = set(order[: round(len(rows) / 10)])
write_rows("data/held_out.jsonl", [row for place, row in enumerate(rows) if place in held_out])
write_rows("data/train.jsonl", [row for place, row in enumerate(rows) if place not in held_out])
print(f"{len(rows) - len(held_out)} rows to train on, {len(held_out)} held out")
