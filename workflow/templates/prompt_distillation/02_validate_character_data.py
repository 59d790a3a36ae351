"""Writes data/questions.jsonl: each question once, with an id. Rows that can't be used are named by file and line.

A row that can't be read or has no question stops the step (`--bad-rows leave_out` goes on without such rows); a
question that is asked twice is kept once. What is left out is in results/left_out.jsonl: line, reason, whole row.
"""

import argparse
from collections import Counter

from distillation import digest_of, user_message, write_json, write_rows
from question_files import Bad, alike, questions_of, read_table, recognise, tell_bad, writable

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("data", help="a file of JSON lines, JSON, CSV or TSV")
parser.add_argument("--at-least", type=int, default=500, help="questions that there must be")
parser.add_argument("--bad-rows", choices=("stop", "leave_out"), default="stop")
parser.add_argument("--reads", default="question", help="columns that the model reads, such as `background question`")
for name in ("question", "setting", "background"):
    parser.add_argument(f"--{name}", metavar="COLUMN", help="read this column, whatever its name")
words = parser.parse_args()

table = read_table(words.data)
recognise(table, question=words.question, setting=words.setting, background=words.background)
for name in words.reads.split():
    if name not in ("question", "setting", "background"):
        raise SystemExit(f"error: `reads` names {name}; allowed are question, setting and background")
    if name not in table.taken and table.rows:
        raise SystemExit(f"error: `reads` names {name}, and {words.data} has no such column; take it out of `reads`, "
                         f"or name "
                         f"the column: --{name} COLUMN")  # fmt: skip
kept, first, repeated = [], {}, []
for one in questions_of(table):
    row = {"setting": one.setting, "question": one.question, "background": one.background}
    asked = alike(user_message(row, words.reads))
    if asked in first:
        repeated.append(Bad(one.line, f"the question of line {first[asked]} again; it is asked once", row))
    else:
        first[asked] = one.line
        kept.append({"id": digest_of(asked)[:12], **row})

left_out = sorted([*table.bad, *repeated], key=lambda one: one.line)
write_rows("results/left_out.jsonl", [{"line": one.line, "why": one.why, "row": writable(one.row)} for one in left_out])
tell_bad(table, left_out)
for note in table.notes:
    print(f"note: {note}")
rows = len(kept) + len(left_out)
found = {
    "file": words.data, "rows": rows, "questions": len(kept), "bad": len(table.bad), "repeated": len(repeated),
    "left_out_share": len(left_out) / rows if rows else 0.0, "settings": dict(Counter(one["setting"] for one in kept)),
    "read_as": table.taken, "at_least": words.at_least,
}  # fmt: skip
told = f"{rows:,} rows: {len(kept):,} questions, {len(table.bad):,} rows that can't be used, {len(repeated):,} repeated"
if table.bad and words.bad_rows == "stop":
    one = table.bad[0]
    more = f" ({len(table.bad) - 1} more such rows: results/left_out.jsonl)" if len(table.bad) > 1 else ""
    print(told)
    raise SystemExit(
        f"error: {table.place(one.line)}: {one.why}{more}. Mend it, or leave such rows out: `bad_rows: leave_out`"
    )
if len(kept) < words.at_least:
    print(told)
    raise SystemExit(
        f"error: {words.data} has {len(kept):,} questions that can be used, of {rows:,} rows; at least "
        f"{words.at_least:,} are wanted. Add {words.at_least - len(kept):,}, or lower `questions`"
    )
write_rows("data/questions.jsonl", kept)
write_json("results/validation.json", found)
print(told)
