"""Looks at all of the teacher's answers, and writes those that are worth learning to data/clean.jsonl.

Left out are empty answers, answers that were cut off (unless `--cut-off keep`), those that give the prompt away, those
that loop, and the same answer to the same question again. Refusals and near duplicates are counted and shown: they may
be as the character is. All reasons are in results/audit.json, what was left out in results/audited_out.jsonl.
"""

import argparse
import re
from collections import Counter
from statistics import fmean, median

from distillation import read_json, read_rows, write_json, write_rows
from near_duplicates import NEAR, near_pairs
from question_files import alike

TEACHER = "data/teacher.jsonl"
LEAK = 8  # words in a row of the prompt's instructions, outside its examples
_REFUSAL = re.compile(r"\b(?:as an ai|language model|i(?:'m| am) (?:unable|not able) to|i can(?:'t|not) "
                       "(?:assist|help with)|"
                      r"openai|hugging ?face|smollm)\b", re.IGNORECASE)  # fmt: skip

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--cut-off", choices=("leave_out", "keep"), default="leave_out")
words = parser.parse_args()
rows, prompt = read_rows(TEACHER), read_json("results/prompt.json")["text"]
if not rows:
    raise SystemExit(f"error: {TEACHER} has no row; the step that makes it is `generate`")


def runs_of(text, length):
    """Return all runs of so many words."""
    found = re.findall(r"\w+", text.casefold())
    return {tuple(found[place : place + length]) for place in range(len(found) - length + 1)}


def instructions():
    """Return the prompt without what it shows as an answer: a character says again what its examples say."""
    quoted = re.sub(r'"[^"\n]*"|“[^”\n]*”', " . ", prompt)
    return "\n".join(
        line for line in quoted.splitlines() if not re.match(r"\s*(?:[QA]|User|Assistant|Question|Answer):", line)
    )


def loops(text):
    """Say whether four words or more come three times, one after another."""
    found = re.findall(r"\w+", text.casefold())
    for length in range(4, len(found) // 3 + 1):
        for place in range(len(found) - 3 * length + 1):
            one = found[place : place + length]
            if one == found[place + length : place + 2 * length] == found[place + 2 * length : place + 3 * length]:
                return True
    return False


secret = set().union(*(runs_of(line, LEAK) for line in instructions().splitlines()))
reasons, clean, left_out, said = Counter(), [], [], set()
for line, row in enumerate(rows, 1):
    answer = row["answer"].strip()
    same = (row["id"], alike(answer))
    why = (
        "empty" if not answer or not row["tokens"]
        else "cut_off" if row["stop"] == "length" and words.cut_off == "leave_out"
        else "gives_the_prompt_away" if secret & runs_of(answer, LEAK)
        else "loops" if loops(answer)
        else "said_before" if same in said
        else ""
    )  # fmt: skip
    said.add(same)
    if why:
        reasons[why] += 1
        left_out.append({"line": line, "why": why, **row})
    else:
        clean.append(row)
write_rows("results/audited_out.jsonl", left_out)
write_rows("data/clean.jsonl", clean)

texts = [row["answer"] for row in clean]
near = near_pairs(texts)
everywhere = Counter(alike(text) for text in texts)
refusals = [row for row in clean if _REFUSAL.search(row["answer"])]
lengths = sorted(len(row["tokens"]) for row in clean) or [0]
of_setting = {}
for row in rows:
    of_setting.setdefault(row.get("setting", ""), [0, 0])[1] += 1
for row in clean:
    of_setting[row.get("setting", "")][0] += 1


def shared(texts, place):
    """Return the commonest beginning (`slice(3)`) or end (`slice(-3, None)`) of three words, and its share."""
    if not texts:
        return ["", 0.0]
    found, count = Counter(" ".join(text.split()[place]) for text in texts).most_common(1)[0]
    return [found, round(count / len(texts), 3)]


audit = {
    "answers": len(rows), "kept": len(clean), "kept_share": len(clean) / len(rows), "left_out": dict(reasons),
    "questions": len({row["id"] for row in rows}), "questions_kept": len({row["id"] for row in clean}),
    "tokens": {"shortest": lengths[0], "median": median(lengths), "mean": round(fmean(lengths), 1),
               "longest": lengths[-1]},
    "refusals": len(refusals), "refusal_examples": [row["answer"] for row in refusals[:3]],
    "same_answer_elsewhere": sum(count - 1 for count in everywhere.values()),
    "commonest_answers": [[text, count] for text, count in everywhere.most_common(5) if count > 1],
    "near_duplicates": len({later for _, _, later in near}), "near_from": NEAR,
    "begins": shared(texts, slice(3)), "ends": shared(texts, slice(-3, None)),
    "settings": {name: {"kept": kept, "of": of} for name, (kept, of) in of_setting.items()},
    "examples_left_out": {why: next(one["answer"][:200] for one in left_out if one["why"] == why) for why in reasons},
}  # fmt: skip
write_json("results/audit.json", audit)
print(f"{len(rows):,} answers, {len(clean):,} kept ({audit['kept_share']:.1%}); left out: "
      + (", ".join(f"{why} {count:,}" for why, count in reasons.most_common()) or "none"))  # fmt: skip
print(f"tokens {lengths[0]} to {lengths[-1]}, median {median(lengths):g}; {audit['begins'][1]:.0%} begin with "
      f"{audit['begins'][0]!r}, {audit['ends'][1]:.0%} end with {audit['ends'][0]!r}")  # fmt: skip
print(f"refusals {len(refusals):,}; the same answer to another question {audit['same_answer_elsewhere']:,}; nearly "
      f"the same "
      f"{audit['near_duplicates']:,}")  # fmt: skip
for why, count in reasons.most_common():
    print(f"  {why}: {TEACHER}:{next(one['line'] for one in left_out if one['why'] == why)}"
          f"{' and ' + str(count - 1) + ' more' if count > 1 else ''}, such as "
          f"{audit['examples_left_out'][why][:90]!r}")  # fmt: skip
if not clean:
    why = reasons.most_common(1)[0][0]
    more = "; more `answer_tokens`, or `cut_off: keep`" if why == "cut_off" else ""
    raise SystemExit(
        f"error: no answer is worth learning: {why} {reasons[why]:,} of {len(rows):,}. "
        f"Look at results/audited_out.jsonl{more}"
    )
