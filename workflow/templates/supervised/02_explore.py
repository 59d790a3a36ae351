"""What is in the data: rows, fields, lengths."""

import json
from collections import Counter

from tinker_service import read_rows, write_text

rows = read_rows("data/examples.jsonl")
lengths = sorted(len(str(row.get("answer", ""))) for row in rows)
overview = {
    "rows": len(rows),
    "fields": dict(Counter(name for row in rows for name in row)),
    "answer_letters": {"shortest": lengths[0], "middle": lengths[len(lengths) // 2], "longest": lengths[-1]},
}
write_text("results/overview.json", json.dumps(overview, indent=1))
print(json.dumps(overview, indent=1))
