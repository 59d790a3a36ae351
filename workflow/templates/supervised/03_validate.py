"""Rows with an empty prompt or answer, and rows that are there twice, are left out and counted."""

import json

from tinker_service import read_rows, write_rows, write_text

rows = read_rows("data/examples.jsonl")
valid, seen, left_out = [], set(), {"empty": 0, "twice": 0}
for row in rows:
    prompt, answer = str(row.get("prompt") or "").strip(), str(row.get("answer") or "").strip()
    if not prompt or not answer:
        left_out["empty"] += 1
    elif prompt in seen:
        left_out["twice"] += 1
    else:
        seen.add(prompt)
        valid.append({"prompt": prompt, "answer": answer})
share = sum(left_out.values()) / max(len(rows), 1)
write_rows("data/valid.jsonl", valid)
write_text("results/validation.json", json.dumps({"valid": len(valid), "left_out": left_out, "left_out_share": share}))
print(f"{len(valid)} rows are valid; left out: {left_out}")
