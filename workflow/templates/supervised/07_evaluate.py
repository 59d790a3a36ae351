"""The trained model beside the one that it began as, on rows that it never saw: loss, and answers that are right."""

import json
import sys

import tinker

from tinker_service import datum, loss_of, lost_connections, read_rows, service, tell, write_rows, write_text

model = sys.argv[1]
rows = read_rows("data/held_out.jsonl")
last = read_rows("results/checkpoints.jsonl")[-1]


def loss(training):
    data = [datum(training.get_tokenizer(), row) for row in rows]
    return loss_of(training.forward(data, "cross_entropy").result(), data)


with lost_connections(), service(model) as client:
    trained = client.create_training_client_from_state(last["path"]).result()
    before = loss(client.create_lora_training_client(base_model=model, rank=1, seed=0).result())
    after = loss(trained)
    tokenizer = trained.get_tokenizer()
    sampler = client.create_sampling_client(model_path=last["sampler"]).result()
    params = tinker.SamplingParams(max_tokens=64, temperature=0.0)
    prompts = [tokenizer.encode(f"{row['prompt']}\n", add_special_tokens=False) for row in rows]
    futures = [
        sampler.sample(prompt=tinker.ModelInput.from_ints(one), num_samples=1, sampling_params=params)
        for one in prompts
    ]
    samples = []
    for row, future in zip(rows, futures, strict=True):
        tokens = [one for one in future.result().sequences[0].tokens if one != tokenizer.eos_token_id]
        samples.append({**row, "said": tokenizer.decode(tokens).strip()})
        tell(done=len(samples), total=len(rows), unit="answers")
right = sum(one["said"] == one["answer"] for one in samples)
found = {
    "step": last["step"], "rows": len(rows), "loss_before": before, "loss_after": after,
    "loss_falls_by": 1 - after / before, "right": right,
}  # fmt: skip
write_rows("results/samples.jsonl", samples)
write_text("results/evaluation.json", json.dumps(found, indent=1))
print(json.dumps(found, indent=1))
