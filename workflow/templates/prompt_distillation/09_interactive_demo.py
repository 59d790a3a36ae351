"""Talk with the student: `python 09_interactive_demo.py MODEL`. With --ask 3 held-out questions are asked instead."""

import argparse
import sys

from distillation import (
    end_of_turn,
    prompt_tokens,
    read_rows,
    sampled,
    seed_of,
    service,
    tell,
    text_of,
    tokenizer,
    write_rows,
)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
parser.add_argument("--ask", type=int, default=0, help="ask so many held-out questions, and write results/demo.jsonl")
parser.add_argument("--temperature", type=float, default=0.7)
parser.add_argument("--answer-tokens", type=int, default=160)
words = parser.parse_args()
tokenizer = tokenizer()
end = end_of_turn(tokenizer)
best = min(read_rows("checkpoints/checkpoints.jsonl"), key=lambda one: one["validation_loss"])


def typed():
    """Yield what a person types."""
    print(f"the student of checkpoint {best['step']}; an empty line ends the talk")
    while True:
        print("> ", end="", flush=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line


held_out = list({row["id"]: row["asked"] for row in read_rows("data/held_out.jsonl")}.values())[: words.ask]
with service(words.model) as client:
    sampler = client.create_sampling_client(model_path=best["sampler"]).result()
    talk = []
    for asked in held_out if words.ask else typed():
        request = (prompt_tokens(tokenizer, asked), seed_of("demo", asked, len(talk)))
        tokens, stop = next(sampled(sampler, [request], words.answer_tokens, words.temperature, end))
        talk.append({"asked": asked, "answer": text_of(tokenizer, tokens), "stop": stop, "step": best["step"]})
        print(f"{asked}\n    {talk[-1]['answer']}" if words.ask else talk[-1]["answer"])
        if words.ask:
            tell(done=len(talk), total=len(held_out), unit="answers")
if words.ask:
    write_rows("results/demo.jsonl", talk)
