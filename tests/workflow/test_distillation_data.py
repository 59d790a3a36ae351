"""The scripts of prompt_distillation that need no model, run as its runner does, on files as people have them."""

import csv
import json
import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from warm_python import run_python

from workflow.new_project import TEMPLATES, write_project

TEMPLATE = TEMPLATES / "prompt_distillation"
EXPLORE, VALIDATE, PREPARE = "01_explore_dataset.py", "02_validate_character_data.py", "04_prepare_student_data.py"
AUDIT, REVIEW = "05_audit_dataset.py", "10_manual_review.py"
PROMPT = """You are a miller. Never say how much flour is in the sack, whoever it is that asks for it.
Background: you own a mill by the river.
Personality: slow, kind, deaf.
Speaking style: short, with flour in it."""


@pytest.fixture
def project(tmp_path):
    """A project of the template's scripts, without its data."""
    write_project(TEMPLATE.name, tmp_path)
    shutil.rmtree(tmp_path / "data")
    for name in ("data", "results"):
        (tmp_path / name).mkdir()
    return tmp_path


def run(project, script, *words, environment=None):
    ended = run_python([project / script, *map(str, words)], project, environment)
    return ended.returncode, ended.stdout + ended.stderr


def written(project, name):
    text = (project / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def rows_of(count):
    return [
        {"setting": "mill", "dialogue": f"What does sack number {n} weigh?", "background": "dusk"} for n in range(count)
    ]


def fails(project, *words, tells, script=VALIDATE, environment=None):
    """Run a script that must fail: told without a traceback, and all of its words."""
    code, said = run(project, script, *words, environment=environment)
    assert code != 0 and "Traceback" not in said, said
    assert "\nerror: " in f"\n{said}", said
    for one in tells:
        assert one in said, said
    return said


def test_the_questions_that_ship_are_six_hundred_different_ones(project):
    shutil.copy(TEMPLATE / "data" / "composer.jsonl", project / "data")
    code, said = run(project, EXPLORE, "data/composer.jsonl")
    assert code == 0, said
    overview = written(project, "results/overview.json")
    assert (overview["rows"], overview["questions"], overview["bad_rows"]) == (600, 600, 0)
    assert set(overview["settings"].values()) == {60} and len(overview["settings"]) == 10
    assert overview["repeated"] == 0 and overview["near_duplicates"] == 0
    assert overview["nearest"] == []
    code, said = run(project, VALIDATE, "data/composer.jsonl", "--at-least", 600)
    assert code == 0, said
    questions = written(project, "data/questions.jsonl")
    assert len({row["id"] for row in questions}) == 600
    first = json.loads((TEMPLATE / "data" / "composer.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert questions[0] == {"id": questions[0]["id"], "setting": first["setting"], "question": first["dialogue"],
                            "background": first["background"]}  # fmt: skip


def test_files_as_other_programs_write_them_are_read(project):
    """A byte-order mark, CRLF, quotes and line breaks in cells, semicolons, other columns, other forms."""
    data = project / "data"
    plain = "\r\n".join(json.dumps({"dialogue": f"Why {word}?"}) for word in ("wheat", "rye", "oats")) + "\r\n\r\n"
    (data / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + plain.encode())
    (data / "b.csv").write_bytes(
        b'\xef\xbb\xbfSetting;Question;Answer\r\nmill;"Who said ""no""; and why?";x\r\ninn;"Two\r\nlines?";y\r\n'
    )
    (data / "c.json").write_text(
        json.dumps({"data": [{"prompt": "Why?", "output": "So."}, {"prompt": "How?"}]}, indent=1)
    )
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "One?"},
             {"role": "assistant", "content": "1"}, {"role": "user", "content": "Two?"}]  # fmt: skip
    write_rows(data / "d.jsonl", [{"messages": turns}, {"messages": [{"role": "user", "content": "Three?"}]}])
    write_rows(
        data / "e.jsonl", [{"conversations": [{"from": "human", "value": "Four?"}, {"from": "gpt", "value": "4"}]}]
    )
    (data / "f.tsv").write_text("question\tlocation\nWhere?\there\n")
    write_rows(data / "g.jsonl", [{"utterance": "Named?", "scene": "at sea"}])
    wanted = {
        "a.jsonl": ["Why wheat?", "Why rye?", "Why oats?"], "b.csv": ['Who said "no"; and why?', "Two\nlines?"],
        "c.json": ["Why?", "How?"], "d.jsonl": ["One?", "Three?"], "e.jsonl": ["Four?"], "f.tsv": ["Where?"],
        "g.jsonl": ["Named?"],
    }  # fmt: skip
    notes = {
        "b.csv": ["cells are divided by ';'", "`Answer` is not used"], "c.json": ["the rows are those of `data`"],
        "d.jsonl": ["1 conversations have several turns", "1 conversations have a system message"],
    }  # fmt: skip
    for name, questions in wanted.items():
        named = ("--question", "utterance") if name == "g.jsonl" else ()
        code, said = run(project, VALIDATE, f"data/{name}", "--at-least", 1, *named)
        assert code == 0, said
        rows = written(project, "data/questions.jsonl")
        assert [row["question"] for row in rows] == questions
        assert all(note in said for note in notes.get(name, [])), said
        if name in ("b.csv", "f.tsv", "g.jsonl"):
            assert rows[-1]["setting"] == {"b": "inn", "f": "here", "g": "at sea"}[name[0]]


def test_rows_that_cannot_be_used_are_named_and_kept(project):
    """Each kind of bad row is told with its line; nothing is written in place of the questions; no row is lost."""
    good = [json.dumps(row) for row in rows_of(3)]
    lines = [
        good[0].encode(), b'{"dialogue": "half a row', b'{"dialogue": "  "}', b'{"question": "Other column?"}',
        b'{"dialogue": 7}', b'["a", "list"]', b'{"dialogue": "Gr\xfc\xdfe?"}', b'{"dialogue": "half \\ud83d"}',
        b'{"dialogue": null}', b'{"dialogue": "?!"}', good[1].encode(), good[0].upper().replace("DIALOGUE",
            "dialogue").encode(),
        b'{"dialogue": "' + b"x" * 8001 + b'"}', good[2].encode(),
    ]  # fmt: skip
    (project / "data" / "mine.jsonl").write_bytes(b"\n".join(lines))
    (project / "data" / "questions.jsonl").write_text("before\n")
    said = fails(project, "data/mine.jsonl", "--at-least", 3, tells=[
        "data/mine.jsonl:2: broken JSON at column", "allowed is one object a line", "mine.jsonl:3: `dialogue` is empty",
        "mine.jsonl:4: no column `dialogue`; the row has `question`",
        "mine.jsonl:5: `dialogue` is a number, 7; allowed is text",
        "mine.jsonl:6: the row is a list", "mine.jsonl:7: wrong encoding: byte 17", "(as Windows-1252 it reads",
        "Grüße",
        "mine.jsonl:8: `dialogue` has half a character", "mine.jsonl:9: `dialogue` is empty",
        "mine.jsonl:10: `dialogue` is '?!'",
        "mine.jsonl:13: `dialogue` has 8,001 characters; allowed are 8,000",
        "14 rows: 3 questions, 10 rows that can't be used",
        "error: data/mine.jsonl:2:", "(9 more such rows: results/left_out.jsonl)", "`bad_rows: leave_out`",
    ])  # fmt: skip
    assert "mine.jsonl:12: the question of line 1 again" in said
    assert (project / "data" / "questions.jsonl").read_text() == "before\n"
    left = written(project, "results/left_out.jsonl")
    assert [row["line"] for row in left] == [2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13]
    assert left[0]["row"] == '{"dialogue": "half a row' and left[2]["row"] == {"question": "Other column?"}
    code, said = run(project, VALIDATE, "data/mine.jsonl", "--at-least", 3, "--bad-rows", "leave_out")
    assert code == 0, said
    assert [row["question"] for row in written(project, "data/questions.jsonl")] == [r["dialogue"] for r in rows_of(3)]
    found = written(project, "results/validation.json")
    assert (found["questions"], found["bad"], found["repeated"]) == (3, 10, 1)
    assert found["left_out_share"] == pytest.approx(11 / 14)


def test_one_question_less_than_wanted_stops(project):
    write_rows(project / "data" / "few.jsonl", [*rows_of(499), rows_of(1)[0]])
    said = fails(project, "data/few.jsonl", "--at-least", 500, tells=[
        "data/few.jsonl:500: the question of line 1 again", "has 499 questions that can be used, of 500 rows",
        "at least 500 are wanted. Add 1, or lower `questions`",
    ])  # fmt: skip
    assert "bad_rows" not in said
    assert run(project, VALIDATE, "data/few.jsonl", "--at-least", 499)[0] == 0


def test_two_backgrounds_make_two_questions_where_they_are_read(project):
    write_rows(
        project / "data" / "both.jsonl",
        [{"dialogue": "Now?", "background": "dawn"}, {"dialogue": "Now?", "background": "dusk"}],
    )
    assert run(project, VALIDATE, "data/both.jsonl", "--at-least", 2, "--reads", "background question")[0] == 0
    assert len(written(project, "data/questions.jsonl")) == 2
    fails(project, "data/both.jsonl", "--at-least", 2, tells=["the question of line 1 again", "has 1 questions"])
    fails(project, "data/both.jsonl", "--reads", "setting question", tells=["`reads` names setting", "no such column"])


@pytest.mark.parametrize(
    ("name", "content", "tells"),
    [
        ("no.jsonl", None, ["there is no file data/no.jsonl", "did you mean data/now.jsonl?"]),
        ("mine.xlsx", b"PK\3\4", ["end in .xlsx are not read; allowed are .jsonl"]),
        ("mine.csv", b"PK\3\4", ["mine.csv:1: this is a zip archive", "CSV UTF-8"]),
        ("mine.jsonl", '{"dialogue": "a"}'.encode("utf-16"),
            ["mine.jsonl:1: this is UTF-16; allowed is text in UTF-8"]),
        ("mine.jsonl", b" \n\n", ["data/mine.jsonl is empty"]),
        ("mine.csv", b"question\n", ["there is no row"]),
        ("mine.jsonl", b'{"dialouge": "a", "place": "b"}\n', ["mine.jsonl:1: no column is a question",
            "`dialouge` (for dialogue?)",
                                                               "--question NAME"]),
        ("mine.csv", b"question,question\na,b\n", ["mine.csv:1: the column question is there twice"]),
        ("mine.csv", b'setting,question\nmill,"Open\nand on\nand on\n',
            ["mine.csv:2: a quote is opened and not closed: 3 line"]),
        ("mine.csv", b"setting,question\nmill,Yes, or no?\nmill,Yes?\n",
            ["mine.csv:2: 3 cells, where the first line names 2"]),
        ("mine.csv", b"question\nWarum gr\xfcn?\nWarum?\n", ["mine.csv:2: wrong encoding: byte 9 of the line, 0xfc"]),
        ("mine.json", b'[\n{"dialogue": "a"},\n{"dialogue": "b"\n{"dialogue": "c"}]', ["mine.json:4: broken JSON",
            "1 rows before it"]),
        ("mine.json", b'{"dialogue": "a"}', ["mine.json:1: the file is one object with `dialogue`"]),
        ("mine.jsonl", b'{"messages": [{"role": "assistant", "content": "hm"}]}',
            ["mine.jsonl:1: `messages` is empty"]),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read_say_what_is_allowed(project, name, content, tells):
    write_rows(project / "data" / "now.jsonl", rows_of(1))
    if content is not None:
        (project / "data" / name).write_bytes(content)
    fails(project, f"data/{name}", "--at-least", 1, tells=tells)
    assert not (project / "data" / "questions.jsonl").exists()


def answers():
    rows = []
    for number in range(40):
        row = {"id": f"q{number // 2}", "setting": "mill", "question": f"Sack {number // 2}?", "sample": number % 2,
               "asked": f"Sack {number // 2}?", "answer": f"It weighs {number} stone and a bit more.", "tokens": [65,
               66, 260],
               "stop": "stop", "key": str(number)}  # fmt: skip
        rows.append(row)
    return rows


def test_the_audit_leaves_out_what_is_not_worth_learning(project):
    """Each reason is counted and shown with its line, and what was left out is kept."""
    rows = answers()
    rows[1] |= {"answer": " ", "tokens": [260]}
    rows[4] |= {"stop": "length"}
    rows[7] |= {"answer": "Never say how much flour is in the sack, they told me."}
    rows[9] |= {"answer": "and so it goes on " * 3}
    rows[11] |= {"answer": rows[10]["answer"].upper()}
    rows[12] |= {"answer": "As an AI I own no mill."}
    write_rows(project / "data" / "teacher.jsonl", rows)
    (project / "results" / "prompt.json").write_text(json.dumps({"text": PROMPT}))
    code, said = run(project, AUDIT)
    assert code == 0, said
    audit = written(project, "results/audit.json")
    reasons = {"empty": 1, "cut_off": 1, "gives_the_prompt_away": 1, "loops": 1, "said_before": 1}
    assert audit["left_out"] == reasons and audit["kept"] == 35 and audit["kept_share"] == pytest.approx(35 / 40)
    assert audit["refusals"] == 1 and audit["ends"] == ["a bit more.", round(34 / 35, 3)]
    assert {row["line"]: row["why"] for row in written(project, "results/audited_out.jsonl")} == {
        2: "empty", 5: "cut_off", 8: "gives_the_prompt_away", 10: "loops", 12: "said_before"}  # fmt: skip
    assert "data/teacher.jsonl:5" in said and len(written(project, "data/clean.jsonl")) == 35
    run(project, AUDIT, "--cut-off", "keep")
    assert written(project, "results/audit.json")["kept"] == 36
    write_rows(project / "data" / "teacher.jsonl", [row | {"stop": "length"} for row in rows])
    fails(
        project,
        script=AUDIT,
        tells=["no answer is worth learning: cut_off", "more `answer_tokens`, or `cut_off: keep`"],
    )


def test_no_question_is_on_both_sides_of_the_split(project):
    write_rows(project / "data" / "clean.jsonl", answers())
    code, said = run(project, PREPARE, "tiny", "--split", 0.9)
    assert code == 0, said
    train, held_out = written(project, "data/train.jsonl"), written(project, "data/held_out.jsonl")
    assert (len(train), len(held_out)) == (36, 4)
    assert not {row["id"] for row in train} & {row["id"] for row in held_out}
    assert "36 answers to 18 questions; held out: 4 answers to 2 others" in said
    write_rows(project / "data" / "clean.jsonl", answers()[::-1])  # the order of rows decides nothing
    run(project, PREPARE, "tiny", "--split", 0.9)
    assert {row["id"] for row in written(project, "data/held_out.jsonl")} == {row["id"] for row in held_out}
    fails(
        project, "tiny", "--split", 1.5, script=PREPARE, tells=["`share` is 1.5; allowed is what lies between 0 and 1"]
    )
    write_rows(project / "data" / "clean.jsonl", answers()[:2])
    fails(project, "tiny", "--split", 0.9, script=PREPARE, tells=["has answers to 1 question; at least 2"])
    write_rows(project / "data" / "clean.jsonl", [*answers(), {"id": "x", "asked": "?"}])
    fails(project, "tiny", "--split", 0.9, script=PREPARE, tells=["clean.jsonl:41: the row lacks answer, tokens, stop"])
    (project / "data" / "clean.jsonl").unlink()
    fails(project, "tiny", "--split", 0.9, script=PREPARE, tells=["data/clean.jsonl has no row", "`audit`"])


def test_prompts_and_the_format_of_what_is_learned(project):
    """The prompt has its parts and its tokens; only the answer and the end of its turn are trained on."""
    pytest.importorskip("tinker")
    pytest.importorskip("transformers")
    from llm.tiny_model import byte_tokenizer

    byte_tokenizer().save_pretrained(project / "results" / "tokenizer")
    code, said = run(project, "character_prompts.py", "tiny", "composer")
    assert code == 0, said
    prompt = written(project, "results/prompt.json")
    assert set(prompt["parts"]) == {"background", "personality", "speaking style"} and prompt["tokens"] > 450
    fails(
        project,
        "tiny",
        "compozer",
        script="character_prompts.py",
        tells=["CHARACTERS has no compozer, which `character` names in workflow.yaml: did you mean composer?"],
    )
    file = project / "character_prompts.py"
    file.write_text(
        file.read_text().replace(
            "CHARACTERS = {\n", 'CHARACTERS = {\n    "miller": "I grind.\\nBackground: a mill.",\n'
        )
    )
    fails(project, "tiny", "miller", script="character_prompts.py", tells=[
        "miller has no background", "miller has no personality; a line that begins with `Personality:`",
        "no speaking style",
        "tokens of tiny; at least 450 are wanted", "error: character_prompts.py:",
    ])  # fmt: skip
    assert written(project, "results/prompt.json") == prompt
    end = byte_tokenizer().convert_tokens_to_ids("<|im_end|>")
    rows = [row | {"tokens": [*b"Heavy.", end]} for row in answers()[:4]]
    rows[1] |= {"tokens": [*b"Heav"], "stop": "length"}
    write_rows(project / "data" / "pilot.jsonl", rows)
    code, said = run(project, PREPARE, "tiny", "--pilot")
    assert code == 0, said
    found = written(project, "results/format.json")
    assert found["only_answers_are_trained"] and found["end_of_turn"] == "<|im_end|>" and found["ended"] == 3
    assert found["trained_tokens"] == [7, 4, 7, 7]
    rows[2] |= {"tokens": [*b"Heavy."]}
    write_rows(project / "data" / "pilot.jsonl", rows)
    fails(
        project,
        "tiny",
        "--pilot",
        script=PREPARE,
        tells=["data/pilot.jsonl:3: the answer ended, and the end of its turn is not"],
    )


@pytest.fixture
def reviewed(project):
    """A project with the answers of thirty held-out questions, two each."""
    references, students = [], []
    for number in range(30):
        row = {"id": f"q{number}", "setting": "mill", "asked": f"Sack {number}?"}
        references.append(row | {"references": [], "base": [], "teacher": [f"teacher {number} {n}" for n in (0, 1)]})
        for step in (1, 2):
            said = [f'student {number} {n}\n</script> "x"\r, and so on' for n in (0, 1)]
            students.append(row | {"step": step, "answers": said if step == 2 else ["worse"], "best": step == 2})
    write_rows(project / "results" / "references.jsonl", references)
    write_rows(project / "results" / "students.jsonl", students)
    return project


def sheet(project, name="results/review.csv"):
    with (project / name).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def fill(project, rows, name="results/review.csv"):
    with (project / name).open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=";", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)


def test_a_review_is_blind_and_counts_only_what_a_person_filled_in(reviewed):
    code, said = run(reviewed, REVIEW, "--rows", 50)
    assert code == 0 and "0 of 50 were judged by a person" in said, said
    rows = sheet(reviewed)
    assert len(rows) == 50 and not any(row["better"] for row in rows)
    # Each question once before any comes again, the student as often A as B.
    assert len({row["asked"] for row in rows}) == 30
    sides = ["a" if row["answer_a"].startswith("student") else "b" for row in rows]
    assert sides.count("a") == 25 and sides != ["a", "b"] * 25
    assert all({row["answer_a"].split()[0], row["answer_b"].split()[0]} == {"student", "teacher"} for row in rows)
    page = (reviewed / "results" / "review.html").read_text(encoding="utf-8")
    data = page[page.index('type="application/json"') :]
    assert "student_is" not in page and data.count("</script>") == 2  # what a model said closes no script
    assert "http" not in page.replace("http-equiv", "") and "default-src 'none'" in page

    for row, side, choice in zip(rows, sides, ["student", "teacher", "same", "student"], strict=False):
        other = {"a": "b", "b": "a"}[side]
        row["better"] = {"student": side.upper(), "teacher": other, "same": "Same"}[choice]
        row[f"{other}_unusable"] = "x"
    fill(reviewed, rows, "downloaded.csv")
    code, said = run(reviewed, REVIEW, "--read", "downloaded.csv")
    assert code == 0 and "4 of 50 were judged by a person: student better 2, as good 1, teacher better 1" in said, said
    counted = written(reviewed, "results/review.json")
    assert counted["reviewed"] == 4 and counted["teacher_unusable"] == 4 and counted["student_unusable"] == 0
    # The step again keeps what was filled in; another sheet puts it aside.
    assert "4 of 50" in run(reviewed, REVIEW, "--rows", 50)[1]
    code, said = run(reviewed, REVIEW, "--rows", 40)
    assert "0 of 40" in said and "results/review_1.csv" in said
    assert sum(bool(row["better"]) for row in sheet(reviewed, "results/review_1.csv")) == 4


@contextmanager
def a_judge(says):
    """Serve a judge in OpenAI's form; yields the variables of its address, and the bodies and keys that it was sent."""
    sent = []

    class Judge(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            sent.append((body, self.headers["authorization"]))
            code, said = says(body["messages"][0]["content"], len(sent))
            answer = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}).encode()
            self.send_response(code)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {"JUDGE_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1/", "JUDGE_API_KEY": "key"}, sent
    finally:
        server.shutdown()
        server.server_close()


def test_a_model_judges_beside_the_person_each_pair_both_ways(reviewed):
    run(reviewed, REVIEW, "--rows", 10)
    rows = sheet(reviewed)
    for row, better in zip(rows[:4], ("student", "student", "teacher", "teacher"), strict=True):
        row["better"] = "a" if row["answer_a"].startswith(better) else "b"
    fill(reviewed, rows, "downloaded.csv")
    run(reviewed, REVIEW, "--read", "downloaded.csv")
    last = rows[-1]["answer_a"]

    def says(text, number):
        if number == 5:
            return 429, "too many"  # once: asked again
        if last in text:
            return 200, "ONE"  # whatever comes first, both ways: it has no opinion
        return 200, "<think>ONE or TWO?</think> TWO" if "Answer TWO:\n\nstudent" in text else "ONE"

    with a_judge(says) as (variables, sent):
        code, said = run(reviewed, REVIEW, "--judge", "wise-1", environment=variables)
        assert code == 0 and "wise-1: student better 9, as good 1, teacher better 0" in said, said
        assert len(sent) == 21 and {key for _, key in sent} == {"Bearer key"}
        assert {(body["model"], body["temperature"]) for body, _ in sent} == {("wise-1", 0)}
        found = written(reviewed, "results/judge.json")
        assert (found["changed_its_mind"], found["unread"], found["share"]) == (1, 0, 0.95)
        assert (found["with_person"], found["agreement"]) == (4, 0.5)
        assert 0.8 <= found["interval"][0] < 0.95 < found["interval"][1] <= 1.0
        # Again, with a line that a kill has torn: what is known is not asked.
        verdicts = reviewed / "results" / "judged.jsonl"
        verdicts.write_text(verdicts.read_text()[:-20])
        assert run(reviewed, REVIEW, "--judge", "wise-1", environment=variables)[0] == 0
        assert len(sent) == 22 and written(reviewed, "results/judge.json") == found
    with a_judge(lambda text, number: (401, "no")) as (variables, sent):
        fails(
            reviewed, "--judge", "other", script=REVIEW, environment=variables, tells=["answers 401", "JUDGE_API_KEY"]
        )


def test_a_review_that_is_filled_in_wrongly_is_told_by_its_line(reviewed):
    run(reviewed, REVIEW, "--rows", 50)
    rows = sheet(reviewed)
    before = (reviewed / "results" / "review.csv").read_bytes()
    rows[0]["better"], rows[1]["a_unusable"] = "left", "maybe"
    fill(reviewed, rows, "downloaded.csv")
    fails(reviewed, "--read", "downloaded.csv", script=REVIEW, tells=[
        "downloaded.csv:2: `better` is 'left'; allowed is a, b, same or nothing",
        "`a_unusable` is 'maybe'; allowed is yes",
    ])  # fmt: skip
    rows = sheet(reviewed)
    rows[0] |= {"better": "a", "answer_a": "of another review"}
    fill(reviewed, rows, "downloaded.csv")
    fails(
        reviewed,
        "--read",
        "downloaded.csv",
        script=REVIEW,
        tells=["the answers of number 1 are not those of results/review.csv", "of another review"],
    )
    fill(reviewed, [{"asked": "x", "better": "a"}], "downloaded.csv")
    fails(reviewed, "--read", "downloaded.csv", script=REVIEW, tells=["the column `number` is not there"])
    fails(reviewed, "--read", "gone.csv", script=REVIEW, tells=["there is no file gone.csv"])
    assert (reviewed / "results" / "review.csv").read_bytes() == before
    fails(
        reviewed,
        "--rows",
        61,
        script=REVIEW,
        tells=["there are 60 pairs of answers to 30 held-out questions; 61 are wanted"],
    )
