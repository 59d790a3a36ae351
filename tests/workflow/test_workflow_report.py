"""The report shows what its workflow declares, and DEPLOYMENT.md has commands that work."""

import json
import re
import subprocess
import sys

import pytest

from tests.workflow.small_workflows import call
from workflow.definition.reading import DefinitionError, read_definition

WORKFLOW = """schema: 1
name: small
title: A <small> workflow
preset: few
presets: {few: {model: tiny, character: quill, rate: 0.1}}
steps:
  - {number: 1, name: make, title: Making, category: data, command: "python make.py {rate}", produces: [made.json]}
report:
  - {title: Figures, text: "Of {model}.", facts: made.json,
     fields: {Near: near %, Cost: spent $, Between: between, Rows: rows, Inner: sums, Absent: nowhere}}
  - title: Who is near
    bars: made.json
    at: {Teacher: teacher, "Student {step}": students}
    value: chrf
    interval: interval
    fields: {chrF: chrf}
  - {title: Loss, curves: metrics.jsonl, fields: [loss]}
  - title: Side by side
    rows: students.jsonl
    where: {best: true}
    beside: {file: teachers.jsonl, by: id}
    fields: {Question: question, Teacher: said.0, Student: answers.0}
    most: 1
  - {title: Review, facts: review.json}
deployment: {name: "{character}", adapter: "models/{character}_distilled", base: "{model}"}
"""
MADE = {
    "near": 0.9567, "spent": 1.2, "between": [0.9, 1.05], "rows": 5000, "sums": {"kept": 10, "of": 12},
    "teacher": {"chrf": 40.0, "interval": [35.0, 45.0]},
    "students": [{"step": 10, "chrf": 20.5}, {"step": 20, "chrf": 38}],
}  # fmt: skip
STUDENTS = [
    {"id": "a", "best": False, "question": "Not shown?", "answers": ["no"]},
    {"id": "b", "best": True, "question": "Who <b>are</b> you?", "answers": ["Quill | I"]},
    {"id": "a", "best": True, "question": "More?", "answers": ["yes"]},
]
TEACHERS = [{"id": "b", "said": ["I am Quill."]}, {"id": "a", "said": ["Aye."]}]


def rows(path, content) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))


@pytest.fixture
def project(tmp_path):
    (tmp_path / "workflow.yaml").write_text(WORKFLOW)
    (tmp_path / "make.py").write_text("")
    (tmp_path / "made.json").write_text(json.dumps(MADE))
    rows(tmp_path / "metrics.jsonl", [{"loss": value} for value in (4.0, 2.0, 1.0, 0.5)])
    rows(tmp_path / "students.jsonl", STUDENTS)
    rows(tmp_path / "teachers.jsonl", TEACHERS)
    return tmp_path


def test_a_report_shows_the_files_that_its_workflow_names(project):
    code, out, _ = call(project, "report")
    assert code == 1 and "no DEPLOYMENT.md: models/quill_distilled has no adapter that can be used" in out
    text = (project / "RESULTS_REPORT.md").read_text()
    figures = text[text.index("## Figures") : text.index("## Who is near")]
    assert figures.split("\n\n", 1)[1] == (
        "Of tiny.\n\n|  |  |\n|---|---|\n| Near | 95.7% |\n| Cost | $1.20 |\n| Between | 0.9 to 1.05 |\n"
        "| Rows | 5,000 |\n| Inner | kept 10, of 12 |\n\n"
    )
    assert "| Teacher | 40 |\n| Student 10 | 20.5 |\n| Student 20 | 38 |" in text
    assert "`metrics.jsonl`: loss from 4 to 0.5, lowest 0.5, in 4 rows." in text
    assert "| Who <b>are</b> you? | I am Quill. | Quill \\| I |\n\nAnd 1 more." in text and "Not shown?" not in text
    assert "review.json is not there yet." in text and "| rate | 0.1 | workflow.yaml |" in text
    page = (project / "report.html").read_text()
    assert "<h1>A &lt;small&gt; workflow</h1>" in page and "Who &lt;b&gt;are&lt;/b&gt; you?" in page
    assert page.count("<rect ") == 3 and page.count("<polyline ") == 1 and "http" not in page.replace("http-equiv", "")
    widths = [float(one) for one in re.findall(r'<rect [^>]*width="([\d.]+)"', page)]
    assert widths[1] / widths[0] == pytest.approx(20.5 / 40, abs=0.01), "bars are as long as their values"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("facts: review.json", "fact: review.json", "workflow.yaml:24: section has no key fact; did you mean facts?"),
        (
            "{title: Loss, curves",
            "{title: Loss, facts: a.json, curves",
            "section has facts and curves; needed is one of ",
        ),
        ("    value: chrf\n", "", "section lacks the key value or at"),
        (
            '"Of {model}."',
            '"Of {modell}."',
            "report names the setting modell, which no preset has; did you mean",
        ),
        ("base: ", "bass: ", "deployment has no key bass; did you mean base?"),
        ("most: 1", "most: few", "most is 'few'; needed is a whole number"),
    ],
)
def test_a_mistake_in_what_a_report_shows_is_told(project, old, new, said):
    assert old in WORKFLOW
    (project / "workflow.yaml").write_text(WORKFLOW.replace(old, new, 1))
    with pytest.raises(DefinitionError) as error:
        read_definition(project / "workflow.yaml")
    assert said in str(error.value), str(error.value)


@pytest.mark.slow
def test_commands_of_the_deployment_work(project):
    """For `tiny`, in the order in which they stand there."""
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    from llm.base_model import load
    from llm.model_export import export_model

    export_model(project / "made_base", load("tiny"))
    model = transformers.AutoModelForCausalLM.from_pretrained(project / "made_base")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapter = project / "models" / "quill_distilled"
    peft.get_peft_model(model, config).save_pretrained(adapter)
    transformers.AutoTokenizer.from_pretrained(project / "made_base").save_pretrained(adapter)

    assert "wrote DEPLOYMENT.md" in call(project, "report")[1].replace(f"{project}/", "")
    text = (project / "DEPLOYMENT.md").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)\n```", text, re.DOTALL)
    shell = [content for language, content in blocks if language == "sh"]
    ask, merge = [content for language, content in blocks if language == "python"]
    assert "vllm serve models/tiny --tokenizer models/quill_distilled --enable-lora --max-lora-rank 8" in text

    def run(*words: str, **options) -> str:
        done = subprocess.run(words, cwd=project, capture_output=True, text=True, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("bash", "-c", shell[0])
    (project / "ask.py").write_text(ask)
    run(sys.executable, "ask.py", "Who", "are", "you?")
    (project / "merge.py").write_text(merge)
    run(sys.executable, "merge.py")
    served = next(content for content in shell if "serve.py" in content)
    server = subprocess.Popen(["bash", "-c", f"exec {served.replace('8123', '0')}"], cwd=project, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    try:
        address = next(found[0] for line in server.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        answer = json.loads(run("bash", "-c", shell[-1].replace("http://127.0.0.1:8123", address)))
    finally:
        server.terminate()
        server.communicate()
    assert answer["model"] == "quill" and isinstance(answer["choices"][0]["message"]["content"], str)
