"""Asks the teacher, the model behind the character's prompt; each answer is on disk before we go on.

An answer belongs to all that it follows from (`key`): after a kill, or when more are wanted, only what lacks is asked.
"""

import argparse
from statistics import fmean

from distillation import (
    append_rows,
    digest_of,
    end_of_turn,
    prompt_tokens,
    read_json,
    read_rows,
    sampled,
    seed_of,
    service,
    tell,
    text_of,
    tokenizer,
    user_message,
    write_json,
    write_rows,
)

TEACHER, PILOT = "data/teacher.jsonl", "data/pilot.jsonl"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
parser.add_argument("--examples", type=int, required=True, help="answers in all")
parser.add_argument("--temperature", type=float, required=True)
parser.add_argument("--answer-tokens", type=int, required=True, help="tokens of an answer at most")
parser.add_argument("--reads", default="question", help="columns that the model reads, such as `background question`")
parser.add_argument("--pilot", type=int, default=0, help="ask so many questions only, and say what all will take")
words = parser.parse_args()

questions, prompt = read_rows("data/questions.jsonl"), read_json("results/prompt.json")["text"]
tokenizer = tokenizer()
end = end_of_turn(tokenizer)


def wanted():
    """Return what is to be asked, in order: all questions once, then all of them a second time, ..."""
    if words.pilot:
        places = [place * len(questions) // words.pilot for place in range(words.pilot)]
        pairs = [(questions[place], 0) for place in places]
    else:
        pairs = [(questions[place % len(questions)], place // len(questions)) for place in range(words.examples)]
    rows = []
    for question, sample in pairs:
        asked = user_message(question, words.reads)
        key = digest_of(words.model, prompt, asked, sample, words.temperature, words.answer_tokens)[:16]
        kept = {name: question.get(name, "") for name in ("id", "setting", "question")}
        rows.append({**kept, "sample": sample, "asked": asked, "key": key})
    return rows


path = PILOT if words.pilot else TEACHER
rows = wanted()
known = {row["key"]: row for row in [*read_rows(PILOT), *read_rows(TEACHER)]}
# Answers to what is no longer asked go, and so does a line that a kill has torn.
write_rows(path, [known[row["key"]] for row in rows if row["key"] in known])
lacking = [row for row in rows if row["key"] not in known]
if len(lacking) < len(rows):
    print(f"goes on: {len(rows) - len(lacking):,} of {len(rows):,} answers are there")
tokens_in = tokens_out = 0
tell(done=len(rows) - len(lacking), total=len(rows), unit="examples")
if lacking:
    with service(words.model) as client:
        sampler = client.create_sampling_client(base_model=words.model).result()
        requests = [(prompt_tokens(tokenizer, row["asked"], prompt), seed_of("teacher", row["key"])) for row in lacking]
        answers = sampled(sampler, requests, words.answer_tokens, words.temperature, end)
        for done, (row, (tokens, stop)) in enumerate(zip(lacking, answers, strict=True), len(rows) - len(lacking) + 1):
            known[row["key"]] = {**row, "answer": text_of(tokenizer, tokens), "tokens": tokens, "stop": stop}
            append_rows(path, [known[row["key"]]])
            tokens_in += len(requests[done - 1 - len(rows) + len(lacking)][0])
            tokens_out += len(tokens)
            tell(done=done, total=len(rows), unit="examples", tokens_in=tokens_in, tokens_out=tokens_out)
answered = [known[row["key"]] for row in rows]
write_rows(path, answered)  # in order, whatever came when
written = fmean(len(row["tokens"]) for row in answered)
cut = sum(row["stop"] == "length" for row in answered)
print(f"{len(answered):,} answers, {written:.1f} tokens each; {cut:,} cut off at {words.answer_tokens}")
if words.pilot:
    read = fmean(len(prompt_tokens(tokenizer, row["asked"], prompt)) for row in answered)
    tokens = {"tokens_in": round(words.examples * read), "tokens_out": round(words.examples * written)}
    write_json("results/pilot.json", {"answers": len(answered), "cut_off": cut, "tokens_in_each": read,
                                      "tokens_out_each": written, "examples": words.examples, **tokens})  # fmt: skip
    print(f"all {words.examples:,} will read {tokens['tokens_in']:,} tokens and write {tokens['tokens_out']:,}")
    for row in answered[:3]:
        print(f"  {row['asked']}\n  -> {row['answer']}")
