"""A workflow.yaml is read whole, and what is wrong with it is told all at once."""

import pytest

from workflow.definition.expression import ExpressionError, calculated, filled
from workflow.definition.reading import DefinitionError, read_definition

GOOD = """schema: 1
name: small
title: Two steps
preset: cpu
presets:
  cpu: {model: tiny, examples: 600}
  tinker: {model: Qwen/Qwen3-8B, examples: 5000}
steps:
  - number: 2
    name: train
    title: Training
    category: training
    command: python 02.py --model {model}
    needs: {steps: [1], files: [a.jsonl], packages: ["tinker>=0.16"], variables: [KEY]}
    produces: [out]
    checks:
      - rows: {file: a.jsonl, at_least: "{examples}"}
    estimate: {minutes: "{examples} * 2 / 60"}
    watch: {loss: true, stall: 4}
    retry: {attempts: 2}
  - {number: 1, name: read, title: Reading, category: dataset, person: true}
"""


def read(tmp_path, text: str):
    file = tmp_path / "workflow.yaml"
    file.write_text(text)
    return read_definition(file)


def mistakes(tmp_path, text: str) -> list[str]:
    with pytest.raises(DefinitionError) as error:
        read(tmp_path, text)
    return [line.removeprefix(f"{tmp_path}/") for line in str(error.value).splitlines()]


def test_a_workflow_is_read(tmp_path):
    found = read(tmp_path, GOOD)
    assert [step.number for step in found.steps] == [1, 2] and found.presets["tinker"]["examples"] == 5000
    train = found.step(2)
    assert train.command == ("python", "02.py", "--model", "{model}") and train.needs.steps == (1,)
    assert train.watch.loss and train.watch.stall == 4 and train.watch.explosion == 10
    assert train.retry.attempts == 2 and train.retry.minutes == 60 and found.step(1).person
    assert train.checks[0].kind == "rows" and train.checks[0].line == 17
    assert filled(train.checks[0].arguments, found.presets["cpu"]) == {"file": "a.jsonl", "at_least": 600}
    assert calculated(train.estimate.minutes, found.presets["tinker"]) == pytest.approx(5000 * 2 / 60)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema: 1", "schema: 3", "workflow.yaml:1: schema is 3; this program reads 1"),
        ("title: Two", "titel: Two", "workflow.yaml:3: workflow.yaml has no key titel; did you mean title?"),
        ("preset: cpu", "preset: gpu", "workflow.yaml:4: preset is 'gpu', which is none of the presets cpu, tinker; "
         "did you mean cpu?"),
        (", examples: 5000", "", "workflow.yaml:7: tinker lacks examples, which cpu has (workflow.yaml:6)"),
        ("number: 2", "number: two", "workflow.yaml:9: number is 'two'; needed is a whole number"),
        ("name: train", "name: Train it", "workflow.yaml:10: name is 'Train it'; a name is small letters, digits "
         "and _, and begins with a letter"),
        ("category: training", "category: trainin", "workflow.yaml:12: category is 'trainin'; there are setup, "
         "dataset, data, training, evaluation, end; did you mean training?"),
        ("python 02.py", "python '02.py", "workflow.yaml:13: command is no command: no closing quotation"),
        ("--model {model}", "--model {modell}", "workflow.yaml:9: step 2 names the setting modell, which no preset "
         "has; did you mean model?"),
        ("steps: [1]", "steps: [3]", "workflow.yaml:9: step 2 needs step 3, which is not there"),
        ("steps: [1]", "steps: [2]", "workflow.yaml:9: step 2 needs itself"),
        ("- rows:", "- row:", "workflow.yaml:17: check there is no check 'row'; there are exists, rows,"),
        ("{file: a.jsonl,", "{", "workflow.yaml:17: rows lacks the key file"),
        ('"{examples} * 2 / 60"', '"{examples} ** 2"', "workflow.yaml:9: step 2, estimate, minutes, with the preset "
         "cpu: '{examples} ** 2' is no arithmetic"),
        ("loss: true", "loss: maybe", "workflow.yaml:19: loss is 'maybe'; needed is true or false"),
        ("number: 1,", "number: 2,", "there are two steps 2"),
        ("person: true", "person: false", "workflow.yaml:21: step has neither a command nor `person: true`"),
        ("steps:\n  - number", "steps: 5\nx:\n  - number", "workflow.yaml:8: steps is '5'; needed is a list"),
        ("presets:", "presets: [", "no YAML:"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line_and_what_was_meant(tmp_path, old, new, said):
    assert old in GOOD
    found = mistakes(tmp_path, GOOD.replace(old, new, 1))
    assert any(said in line for line in found), found


def test_all_mistakes_are_told_at_once(tmp_path):
    text = GOOD.replace("number: 2", "number: two").replace("loss: true", "loss: 3").replace("title: Two", "titl: Two")
    found = mistakes(tmp_path, text.replace("python 02.py", "python '02.py"))
    assert len(found) == 4, found


WITH_FILES = GOOD.replace("presets:", "settings: [data.yaml, training.yaml]\npresets:").replace(
    "02.py", "02.py --rate {rate} --rows {rows} {shape}"
)  # fmt: skip
DATA = "cpu: {rows: 5, shape: short}\ntinker: {rows: 50, shape: long}\n"
TRAINING = "cpu:\n  rate: 0.1\ntinker:\n  rate: 1e-4\n"


def test_settings_stand_in_files_of_their_own(tmp_path):
    (tmp_path / "data.yaml").write_text(DATA)
    (tmp_path / "training.yaml").write_text(TRAINING)
    found = read(tmp_path, WITH_FILES)
    assert found.presets["cpu"] == {"model": "tiny", "examples": 600, "rows": 5, "shape": "short", "rate": 0.1}
    assert found.presets["tinker"]["rate"] == "1e-4" and found.files["rate"] == "training.yaml"
    assert found.files["model"] == "workflow.yaml"


@pytest.mark.parametrize(
    ("data", "training", "said"),
    [
        (DATA, None, ["workflow.yaml:5: file training.yaml is not there; did you mean training_.yaml?"]),
        (DATA, "cpu: [\n", ["training.yaml:2: no YAML: expected the node content, but found '<stream end>'"]),
        (DATA, "", ["training.yaml:1: it is empty; needed are the presets cpu, tinker"]),
        (DATA, "- 1\n", ["training.yaml:1: training.yaml is a list; needed are keys and values: cpu, tinker"]),
        (DATA, TRAINING.replace("tinker", "tinkr"), ["training.yaml:3: training.yaml has no key tinkr; did you mean "
                                                     "tinker?"]),
        (DATA, TRAINING.replace("1e-4", ""), ["training.yaml:4: rate is empty; needed is a value"]),
        (DATA, TRAINING.replace("1e-4", "high"), ["training.yaml:4: rate is 'high'; needed is a number, as cpu has it "
                                                  "(0.1)"]),
        (DATA, TRAINING.replace("1e-4", "{a: 1}"), ["training.yaml:4: rate has keys of its own; needed is a value"]),
        (DATA, "cpu:\n  rate: 0.1\n", ["training.yaml:2: tinker lacks rate, which cpu has (training.yaml:2)"]),
        (DATA, TRAINING.replace("  rate: 1e-4", "  rat: 1e-4"),
         ["training.yaml:4: rat is a setting that no step uses; did you mean rate?"]),
        (DATA, TRAINING + "  rows: 7\n", ["training.yaml:5: rows is there already, in data.yaml:2"]),
        (DATA, TRAINING.replace("rate", "rte"), ["workflow.yaml:10: step 2 names the setting rate, which no preset "
         "has; did you mean rte?", "training.yaml:2: rte is a setting that no step uses; did you mean rate?",
         "training.yaml:4: rte is a setting that no step uses; did you mean rate?"]),
        (DATA.replace("rows: 50, ", ""), TRAINING.replace("1e-4", "high"),
         ["data.yaml:2: tinker lacks rows, which cpu has (data.yaml:1)",
          "training.yaml:4: rate is 'high'; needed is a number, as cpu has it (0.1)"]),
    ],
)  # fmt: skip
def test_mistakes_in_files_of_settings_are_told_all_at_once(tmp_path, data, training, said):
    (tmp_path / "data.yaml").write_text(data)
    (tmp_path / ("training_.yaml" if training is None else "training.yaml")).write_text(
        TRAINING if training is None else training
    )
    assert mistakes(tmp_path, WITH_FILES) == said


def test_a_misspelt_setting_is_told_too_where_a_step_can_t_be_read(tmp_path):
    text = GOOD.replace("model: tiny, examples: 600", "model: tiny, exampels: 600").replace(
        "title: Reading", "titel: Reading"
    )
    assert mistakes(tmp_path, text)[0] == (
        "workflow.yaml:6: exampels is a setting that no step uses; did you mean examples?"
    )
    assert not any("lacks examples" in line or "lacks exampels" in line for line in mistakes(tmp_path, text))


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00a", b"- a\n- b\n", b"a: &x [*x]\n", b"!!python/object:os.system {}"]
)
def test_what_is_no_workflow_is_refused(tmp_path, content):
    file = tmp_path / "workflow.yaml"
    file.write_bytes(content)
    with pytest.raises(DefinitionError, match=r"workflow\.yaml"):
        read_definition(file)


@pytest.mark.parametrize("text", ["__import__('os')", "1 / 0", "{absent}", "2 **9", "x", "", "(" * 5000])
def test_only_arithmetic_is_worked_out(text):
    with pytest.raises(ExpressionError):
        calculated(text, {"examples": 3})
