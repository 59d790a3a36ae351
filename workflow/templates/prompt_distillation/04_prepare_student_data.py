"""The teacher's answers as the student learns them: without the character's prompt, and split by question.

--pilot proves, on the pilot's answers, that nothing but the answer and the end of its turn is trained on
(results/format.json). --split 0.9 writes data/train.jsonl and data/held_out.jsonl: all answers to a question are on one
side, so that no question that is held out has been trained on.
"""

import argparse
import hashlib
from collections import Counter

from distillation import datum, end_of_turn, prompt_tokens, read_json, read_rows, tokenizer, write_json, write_rows

PILOT, CLEAN = "data/pilot.jsonl", "data/clean.jsonl"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
what = parser.add_mutually_exclusive_group(required=True)
what.add_argument("--pilot", action="store_true")
what.add_argument("--split", type=float, metavar="SHARE", help="share of the questions to train on, between 0 and 1")
words = parser.parse_args()


def rows_of(path, made_by):
    """Return the rows of a file that an earlier step has made."""
    rows = read_rows(path)
    if not rows:
        raise SystemExit(f"error: {path} has no row; the step that makes it is `{made_by}`")
    for line, row in enumerate(rows, 1):
        if lacking := [name for name in ("id", "asked", "answer", "tokens", "stop") if name not in row]:
            raise SystemExit(f"error: {path}:{line}: the row lacks {', '.join(lacking)}; it was changed, or is of "
                             f"another "
                             f"file. Make it anew: the step `{made_by}`")  # fmt: skip
        if not row["tokens"]:
            raise SystemExit(f"error: {path}:{line}: the answer has no token, so nothing of it can be learned")
    return rows


def prove_format():
    """Write results/format.json, or end with the first row that is not of the form."""
    reader = tokenizer()
    character, end = read_json("results/prompt.json")["text"], end_of_turn(reader)
    rows, lengths = rows_of(PILOT, "pilot"), []
    ended = 0
    for line, row in enumerate(rows, 1):
        one = datum(reader, row)
        tokens, targets = one.model_input.to_ints(), list(one.loss_fn_inputs["target_tokens"].data)
        weights = list(one.loss_fn_inputs["weights"].data)
        trained = [token for token, weight in zip(targets, weights, strict=True) if weight]
        prompt = prompt_tokens(reader, row["asked"])
        text = reader.decode(tokens)
        wrong = [
            told for told, holds in (
                ("other tokens are trained on than the answer's", trained == row["tokens"]),
                ("the tokens before the answer are not the question alone",
                 [*tokens, targets[-1]] == [*prompt, *row["tokens"]]),
                ("targets are not the next tokens", targets[:-1] == tokens[1:]),
                ("the character's prompt is in it", character[:100] not in text),
                ("the question is not in it", " ".join(row["asked"].split()) in " ".join(text.split())),
                ("the answer ended, and the end of its turn is not trained on",
                 row["stop"] != "stop" or trained[-1] == end),
            ) if not holds
        ]  # fmt: skip
        if wrong:
            raise SystemExit(f"error: {PILOT}:{line}: {wrong[0]}; see `datum` and `prompt_tokens` in distillation.py")
        ended += row["stop"] == "stop"
        lengths.append((len(prompt), len(trained)))
    found = {
        "rows": len(rows), "only_answers_are_trained": True, "without_the_prompt": True, "ended": ended,
        "end_of_turn": reader.decode([end]), "prompt_tokens": [one for one, _ in lengths],
        "trained_tokens": [other for _, other in lengths],
        "example": {"read": reader.decode(prompt_tokens(reader, rows[0]["asked"])),
                    "learned": reader.decode(rows[0]["tokens"])},
    }  # fmt: skip
    write_json("results/format.json", found)
    print(f"{len(rows)} rows: of {sum(map(sum, lengths))} tokens {sum(other for _, other in lengths)} are trained on, "
          f"the "
          f"answers and {ended} ends of turns {found['end_of_turn']!r}; the character's prompt is in none")  # fmt: skip
    print(f"read:    {found['example']['read']!r}\nlearned: {found['example']['learned']!r}")


def split(share):
    """Write data/train.jsonl and data/held_out.jsonl: held out are questions with the lowest digests, in any order."""
    if not 0 < share < 1:
        raise SystemExit(f"error: `share` is {share:g}; allowed is what lies between 0 and 1, such as 0.9")
    rows = rows_of(CLEAN, "audit")
    answers = Counter(row["id"] for row in rows)
    if len(answers) < 2:
        raise SystemExit(
            f"error: {CLEAN} has answers to {len(answers)} question; at least 2 are wanted to hold one out"
        )
    order = sorted(answers, key=lambda one: hashlib.sha256(one.encode()).hexdigest())
    wanted, held_out, count = len(rows) * (1 - share), set(), 0
    for (
        one
    ) in order:  # questions are taken until their answers are the share that is wanted, as near as they come to it
        if held_out and abs(count + answers[one] - wanted) > abs(count - wanted):
            break
        held_out.add(one)
        count += answers[one]
    held_out = held_out if len(held_out) < len(answers) else set(order[:-1])
    write_rows("data/held_out.jsonl", [row for row in rows if row["id"] in held_out])
    write_rows("data/train.jsonl", [row for row in rows if row["id"] not in held_out])
    count = sum(answers[one] for one in held_out)
    print(f"train: {len(rows) - count:,} answers to {len(answers) - len(held_out):,} questions; held out: {count:,} "
          f"answers to "
          f"{len(held_out):,} others")  # fmt: skip


if words.pilot:
    prove_format()
else:
    split(words.split)
