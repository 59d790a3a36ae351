"""Answers for a person to judge: the teacher's beside the best student's, blind. What nobody filled in stays empty.

Writes results/review.html (a page that needs nothing else) and results/review.csv (the same for a program for tables).
--read counts what was filled in, there or in a file that the page has downloaded: results/review.json. Which answer is
whose is in results/review_key.json alone.

--judge MODEL lets a model judge the same pairs, beside the person: results/judge.json, and how often it said what the
person said. It is asked at JUDGE_BASE_URL (https://api.openai.com/v1 where that is not set) with JUDGE_API_KEY, in the
form of OpenAI's chat completions.
"""

import argparse
import csv
import io
import json
import os
import random
import re
import shutil
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from statistics import fmean

from distillation import append_rows, digest_of, read_json, read_rows, write_json, write_text
from question_files import read_table

SHEET, PAGE, KEY, COUNTED = (
    "results/review.csv",
    "results/review.html",
    "results/review_key.json",
    "results/review.json",
)
COLUMNS = ("number", "setting", "asked", "answer_a", "answer_b", "better", "a_unusable", "b_unusable", "note")
FILLED = COLUMNS[5:]
PROMPT = "results/prompt.json"
JUDGED, VERDICTS = "results/judge.json", "results/judged.jsonl"
DRAWS, ATTEMPTS = 2000, 6
MADE_BY = "python 10_manual_review.py"
_BETTER = {"": "", "a": "a", "b": "b", "same": "same", "as good": "same", "equal": "same", "tie": "same"}
_MARK = {
    "": "",
    "yes": "yes",
    "y": "yes",
    "x": "yes",
    "1": "yes",
    "true": "yes",
    "no": "",
    "n": "",
    "0": "",
    "false": "",
}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rows", type=int, default=50, help="pairs of answers to judge")
parser.add_argument("--seed", type=int, default=0, help="of the order, and of which answer is A")
parser.add_argument(
    "--read", nargs="?", const=SHEET, metavar="FILE", help=f"count what was filled in; {SHEET} as a rule"
)
parser.add_argument("--judge", metavar="MODEL", help="let a model judge the pairs too")
words = parser.parse_args()


def pairs():
    """Return the pairs to judge, in their order, and for each which side is the student's."""
    teacher = {row["id"]: row for row in read_rows("results/references.jsonl")}
    students = [row for row in read_rows("results/students.jsonl") if row["best"] and row["id"] in teacher]
    if not students:
        raise SystemExit("error: results/students.jsonl has no answer of a best checkpoint to a question of "
                         "results/references.jsonl; the steps that make them are `harness` and `best`")  # fmt: skip
    drawn = random.Random(f"review {words.seed}")
    students = drawn.sample(students, len(students))
    both = []
    for sample in range(max(len(row["answers"]) for row in students)):  # each question once before any comes again
        for row in students:
            others = teacher[row["id"]]["teacher"]
            if sample < min(len(row["answers"]), len(others)):
                both.append((row, row["answers"][sample], others[sample]))
    if len(both) < words.rows:
        raise SystemExit(f"error: there are {len(both)} pairs of answers to {len(students)} held-out questions; "
                         f"{words.rows} are wanted. Lower `review`, or raise `samples` or `examples`")  # fmt: skip
    both = drawn.sample(both[: words.rows], words.rows)
    sides = ["a", "b"] * (words.rows // 2 + 1)
    sides = drawn.sample(sides[: words.rows], words.rows)
    rows = []
    for number, ((row, mine, other), side) in enumerate(zip(both, sides, strict=True), 1):
        first, second = (mine, other) if side == "a" else (other, mine)
        rows.append({"number": str(number), "setting": row["setting"], "asked": row["asked"], "answer_a": first,
                     "answer_b": second, **dict.fromkeys(FILLED, "")})  # fmt: skip
    return rows, sides


def prepare():
    """Write the sheet and the page; what was filled in for the same answers is kept."""
    rows, sides = pairs()
    key = digest_of([[row[name] for name in COLUMNS[:5]] for row in rows])[:16]
    sheet = Path(SHEET)
    if sheet.exists():
        before = {row["number"]: row for row in filled_in(sheet)}
        if Path(KEY).exists() and read_json(KEY)["key"] == key:
            for row in rows:
                row.update({name: before.get(row["number"], row)[name] for name in FILLED})
        elif any(row[name] for row in before.values() for name in FILLED):
            old = next(sheet.with_name(f"review_{n}.csv") for n in range(1, 10**6)
                       if not sheet.with_name(f"review_{n}.csv").exists())  # fmt: skip
            if Path(KEY).exists():
                shutil.copyfile(KEY, old.with_name(f"{old.stem}_key.json"))
            sheet.rename(old)
            print(f"the answers are others now; what was filled in for those before is in {old}")
    write_json(KEY, {"key": key, "seed": words.seed, "student_is": dict(enumerate(sides, 1))})
    write_sheet(rows)
    prompt = read_json(PROMPT)["text"] if Path(PROMPT).exists() else ""
    content = {"key": key, "columns": COLUMNS, "prompt": prompt, "rows": rows}
    data = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")
    page = Path(__file__).with_name("review_page.html").read_text(encoding="utf-8")
    write_text(PAGE, page.replace(">DATA<", f">{data}<"))
    count(rows)
    print(f"open {PAGE} in a browser, judge, download; then: {MADE_BY} --read FILE")


def write_sheet(rows):
    """Write results/review.csv."""
    text = io.StringIO(newline="")
    # All is quoted: a lone carriage return, which random weights write, is else the beginning of a new row.
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    write_text(SHEET, text.getvalue())


def filled_in(path):
    """Return the rows of a sheet as they were filled in; all that is not allowed is told."""
    if not Path(path).is_file():
        raise SystemExit(f"error: there is no file {path}; {PAGE} puts review.csv where the browser puts its downloads")
    table = read_table(path)
    if lacking := [name for name in ("number", "better") if not table.columns[name]]:
        raise SystemExit(f"error: {path}:1: the column `{lacking[0]}` is not there; a sheet has {', '.join(COLUMNS)}")
    wrong = [f"{table.place(one.line)}: {one.why}" for one in table.bad]
    rows, seen = [], set()
    for line, row in table.rows:
        row = {name: str(row.get(name) or "").strip() for name in COLUMNS}
        if row["number"] in seen:
            wrong.append(f"{table.place(line)}: the number {row['number']} is there twice; allowed is once")
        seen.add(row["number"])
        for name, allowed in (("better", _BETTER), ("a_unusable", _MARK), ("b_unusable", _MARK)):
            if row[name].lower() not in allowed:
                choice = "a, b, same or nothing" if name == "better" else "yes or nothing"
                wrong.append(f"{table.place(line)}: `{name}` is {row[name]!r}; allowed is {choice}")
            row[name] = allowed.get(row[name].lower(), "")
        rows.append(row)
    if wrong:
        print("\n".join(wrong))
        raise SystemExit(f"error: {wrong[0]}" + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""))
    return rows


def read_back(path):
    """Take over what was filled in, and count it."""
    if not Path(KEY).exists():
        raise SystemExit(f"error: there is no {KEY}, which says whose answer is which; make it: {MADE_BY}")
    given = {row["number"]: row for row in filled_in(path)}
    if not Path(SHEET).exists():
        raise SystemExit(f"error: there is no {SHEET}; make it: {MADE_BY}")
    rows = filled_in(SHEET)
    ours = {row["number"]: row for row in rows}
    for number, row in given.items():
        same = number in ours and "".join(row["answer_a"].split()) == "".join(ours[number]["answer_a"].split())
        if not same:
            raise SystemExit(
                f"error: {path}: the answers of number {number} are not those of {SHEET}: it is of another review"
            )
    for number, row in given.items():
        ours[number].update({name: row[name] for name in FILLED})
    write_sheet(rows)
    count(rows)


def count(rows):
    """Write results/review.json: how many were judged, and for whom."""
    student = read_json(KEY)["student_is"]
    done = [row for row in rows if row["better"]]
    won = Counter("same" if row["better"] == "same" else "student" if row["better"] == student[row["number"]]
                  else "teacher" for row in done)  # fmt: skip
    unusable = Counter("student" if student[row["number"]] == side else "teacher"
                       for row in done for side in "ab" if row[f"{side}_unusable"])  # fmt: skip
    found = {
        "rows": len(rows), "reviewed": len(done), "student_better": won["student"], "same": won["same"],
        "teacher_better": won["teacher"], "student_unusable": unusable["student"],
        "teacher_unusable": unusable["teacher"], "notes": sum(bool(row["note"]) for row in rows),
    }  # fmt: skip
    write_json(COUNTED, found)
    print(f"{len(done)} of {len(rows)} were judged by a person" + (
        f": student better {won['student']}, as good {won['same']}, teacher better {won['teacher']}; "
        f"unusable: student {unusable['student']}, teacher {unusable['teacher']}" if done else ""))  # fmt: skip


def judge(model):
    """Ask a model which answer of each pair is better, both ways round, and write results/judge.json."""
    if not Path(SHEET).exists() or not Path(KEY).exists():
        raise SystemExit(f"error: there is no {SHEET} with its {KEY}; make them: {MADE_BY}")
    rows, student = filled_in(SHEET), read_json(KEY)["student_is"]
    character = read_json(PROMPT)["text"] if Path(PROMPT).exists() else ""
    known = {row["key"]: row["said"] for row in read_rows(VERDICTS)}  # each is on disk as it comes
    write_rows_of(known)
    done, changed, unread = [], 0, 0
    for place, row in enumerate(rows, 1):
        said = []
        for first, second in ("ab", "ba"):
            text = question_to_judge(character, row["asked"], row[f"answer_{first}"], row[f"answer_{second}"])
            key = digest_of(model, text)[:16]
            if key not in known:
                known[key] = asked_of(model, text)
                append_rows(VERDICTS, [{"key": key, "said": known[key]}])
            found = re.findall(r"\b(ONE|TWO|SAME)\b", known[key].upper())
            said.append({"ONE": first, "TWO": second, "SAME": "same"}[found[-1]] if found else "")
        unread += "" in said
        changed += "" not in said and said[0] != said[1]
        verdict = said[0] if said[0] == said[1] and said[0] else "same"
        won = "same" if verdict == "same" else "student" if verdict == student[row["number"]] else "teacher"
        done.append((row, verdict, won))
        print(f"{place}/{len(rows)} judged", flush=True)
    worth = [{"student": 1.0, "same": 0.5, "teacher": 0.0}[won] for _, _, won in done]
    draws = random.Random(0)
    means = sorted(fmean(draws.choices(worth, k=len(worth))) for _ in range(DRAWS))
    both = [(row["better"], verdict) for row, verdict, _ in done if row["better"]]
    count = Counter(won for _, _, won in done)
    found = {
        "judge": model, "pairs": len(done), "student_better": count["student"], "same": count["same"],
        "teacher_better": count["teacher"], "changed_its_mind": changed, "unread": unread, "share": fmean(worth),
        "interval": [means[DRAWS // 40], means[-DRAWS // 40 - 1]], "with_person": len(both),
        "agreement": fmean(one == other for one, other in both) if both else None,
    }  # fmt: skip
    write_json(JUDGED, found)
    low, high = found["interval"]
    print(f"{model}: student better {count['student']}, as good {count['same']}, teacher better {count['teacher']}; "
          f"share of the student {found['share']:.2f} ({low:.2f} to {high:.2f}); {changed} not the same both ways, "
          f"{unread} without an answer that can be read")  # fmt: skip
    if both:
        print(f"of {len(both)} pairs that a person has judged too it said the same in {found['agreement']:.0%}")
    else:
        print("no person has judged these pairs yet, so nothing is known of how far this judge can be trusted")


def write_rows_of(known):
    """Write the verdicts that are known anew: a last line that a kill has torn is not kept."""
    write_text(VERDICTS, "".join(json.dumps({"key": key, "said": said}) + "\n" for key, said in known.items()))


def question_to_judge(character, asked, first, second):
    """Return what the judge is asked."""
    parts = [
        "A character is described so:", character, "It was asked:", asked, "Answer ONE:", first, "Answer TWO:", second,
        "Which is the better answer of this character: in its manner, right, and to the point? Say ONE, TWO or SAME, "
        "and nothing else.",
    ]  # fmt: skip
    return "\n\n".join(parts)


def asked_of(model, text):
    """Return what the judge says."""
    address = os.environ.get("JUDGE_BASE_URL", "https://api.openai.com/v1").rstrip("/")
    body = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 1024}
    headers = {"content-type": "application/json", "authorization": f"Bearer {os.environ.get('JUDGE_API_KEY', '')}"}
    request = urllib.request.Request(f"{address}/chat/completions", json.dumps(body).encode(), headers)
    for attempt in range(ATTEMPTS):
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return str(json.load(answer)["choices"][0]["message"]["content"] or "")
        except urllib.error.HTTPError as error:
            told = f"{address} answers {error.code}: {error.read().decode(errors='replace')[:300]}"
            if error.code == 401:
                raise SystemExit(f"error: {told}\nThe key is JUDGE_API_KEY of the environment.") from None
            if error.code not in (408, 409, 429) and error.code < 500:
                raise SystemExit(f"error: {told}") from None
        except (OSError, ValueError) as error:  # of the network, or a gateway's page that is no JSON
            told = f"{address} can't be asked: {error}. Its address is JUDGE_BASE_URL of the environment."
        if attempt < ATTEMPTS - 1:
            time.sleep(2**attempt)
    raise SystemExit(f"error: {told} Verdicts so far are kept; the same command goes on.")


if words.judge:
    judge(words.judge)
elif words.read:
    read_back(words.read)
else:
    prepare()
