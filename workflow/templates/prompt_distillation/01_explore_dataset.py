"""Shows what is in a file of questions: columns, settings, lengths, repeated rows, and an example of each setting."""

import argparse
from collections import Counter
from statistics import fmean, median

from distillation import write_json
from near_duplicates import NEAR, near_pairs
from question_files import alike, questions_of, read_table, recognise, tell_bad

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("data", help="a file of JSON lines, JSON, CSV or TSV")
for name in ("question", "setting", "background"):
    parser.add_argument(f"--{name}", metavar="COLUMN", help="read this column, whatever its name")
words = parser.parse_args()

table = read_table(words.data)
recognise(table, question=words.question, setting=words.setting, background=words.background)
questions = questions_of(table)
rows = len(questions) + len(table.bad)
print(f"{words.data}: {table.kind}, {rows:,} rows, {len(questions):,} of them questions")
print("columns: " + ", ".join(f"{name} ({count:,})" for name, count in table.columns.items()))
print("read as: " + ", ".join(f"{what} = {name}" for what, name in table.taken.items()))
for note in table.notes:
    print(f"note: {note}")
tell_bad(table, table.bad)
if not questions:
    raise SystemExit(f"error: {words.data} has no question that can be used; the first reason: {table.bad[0].why}")

texts = [one.question for one in questions]
letters, counted = sorted(map(len, texts)), [len(text.split()) for text in texts]
settings = Counter(one.setting for one in questions)
repeated = len(texts) - len({alike(text) for text in texts})
near = near_pairs(texts)
examples = {}
for one in questions:
    examples.setdefault(one.setting, one.question)
overview = {
    "file": words.data, "format": table.kind, "rows": rows, "questions": len(questions), "bad_rows": len(table.bad),
    "columns": dict(table.columns), "read_as": table.taken, "notes": table.notes,
    "first_bad_rows": [f"{table.place(one.line)}: {one.why}" for one in table.bad[:20]],
    "letters": {"shortest": letters[0], "median": median(letters), "mean": round(fmean(letters), 1),
                "longest": letters[-1]},
    "words": {"median": median(counted), "mean": round(fmean(counted), 1)},
    "settings": dict(settings), "repeated": repeated,
    "near_duplicates": len({later for _, _, later in near}), "near_from": NEAR,
    "nearest": [[round(share, 2), texts[one], texts[other]] for share, one, other in near[:5]],
    "with_question_mark": sum("?" in text for text in texts), "examples": examples,
}  # fmt: skip
write_json("results/overview.json", overview)
print(f"letters: {letters[0]} to {letters[-1]}, median {median(letters):g}; words: {fmean(counted):.1f} on average")
print(f"repeated: {repeated:,}; nearly the same (trigrams, {NEAR} and more): {overview['near_duplicates']:,}")
for setting, count in settings.most_common(20):
    print(f"  {setting or '(no setting)'}: {count:,}, such as {examples[setting][:90]!r}")
