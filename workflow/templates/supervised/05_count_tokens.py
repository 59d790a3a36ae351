"""How many tokens the rows are for this model."""

import json
import sys

from tinker_service import datum, lost_connections, read_rows, service, write_text

model = sys.argv[1]
rows = read_rows("data/train.jsonl") + read_rows("data/held_out.jsonl")
with lost_connections(), service(model) as client:
    tokenizer = client.create_lora_training_client(base_model=model, rank=1, seed=0).result().get_tokenizer()
    lengths = [datum(tokenizer, row).model_input.length for row in rows]
write_text("results/tokens.json", json.dumps({"rows": len(rows), "sum": sum(lengths), "longest": max(lengths)}))
print(f"{sum(lengths):,} tokens in {len(rows)} rows; the longest has {max(lengths)}")
