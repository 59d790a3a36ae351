"""Prompts are distilled through the command line: what is learned, which answers are asked for, resuming, bad input."""

import json
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("gguf")

from data.chat_messages import Conversation
from data.chat_renderer import Renderer
from llm.adapter_files import load_adapter
from llm.base_model import load
from model.lora import AdapterRows
from model.packed_attention import PackedRows
from storage.answer_journal import KeptAnswer, read_answers

PROMPT = "Cry it out as a capital."
QUESTIONS = [letter * times for letter in "abcd" for times in range(1, 6)]
TEMPLATE = (  # short, so that little is to be learned
    "{% for message in messages %}{{ '<|im_start|>' + message['role'][0] + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>a' }}{% endif %}"
)
KILLED = """
import os, signal
from train.callbacks import Callback

class Watch(Callback):
    def on_step_end(self, trainer, steps):
        if trainer.record.progress.step == int(os.environ.get("KILL_AT", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
"""
# A run that is killed when its teacher's first answers are on disk, before it has trained anything.
DYING = """
import os, signal, sys
from commands.command_line import main
from storage.answer_journal import AnswerJournal

keep = AnswerJournal.keep

def keep_some(self, answers):
    keep(self, answers[:3])
    os.kill(os.getpid(), signal.SIGKILL)

AnswerJournal.keep = keep_some
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def lab(shared_project):
    """A project whose base model follows a prompt: `aaa` is answered `A!` behind it, and `?` without."""
    path = shared_project.path
    (path / "watch.py").write_text(KILLED)
    (path / "dying.py").write_text(DYING)
    (path / "prompt.txt").write_text(PROMPT + "\n")
    (path / "letters.txt").write_text("\n".join(QUESTIONS) + "\n")
    (path / "short.jinja").write_text(TEMPLATE)
    rows = []
    for text in QUESTIONS:
        asked, said = {"role": "user", "content": text}, {"role": "assistant", "content": f"{text[0].upper()}!"}
        rows += [[{"role": "system", "content": PROMPT}, asked, said], [asked, {**said, "content": "?"}]]
    (path / "taught.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    words = ("base_model=tiny", "trained=all", "train_data=taught.jsonl", "val_data=taught.jsonl", "epochs=24",
             "batch_size=8", "learning_rate=3e-3", "sample_count=0", "plot_at_end=off",
             "template=short.jinja")  # fmt: skip
    done = shared_project.run("LanguageModel", *words)
    assert done.returncode == 0, done.stderr
    model = shared_project.runs("LanguageModel")[-1] / "model"
    settings = path / "config.ini"
    text = settings.read_text().replace("base_model = smollm2", f"base_model = {model}\n;")
    text = text.replace("data/language/captain_prompt.txt", "prompt.txt                      ")
    text = text.replace("data/language/captain_questions.txt", "letters.txt                        ")
    settings.write_text(
        text.replace("sample_count = 3", "sample_count = 0").replace("answer_tokens = 100", "answer_tokens = 6")
    )
    return shared_project


QUICK = {"plot_at_end": "off", "epochs": "6", "batch_size": "4", "learning_rate": "3e-3"}


def words_of(*words: str) -> list[str]:
    """Settings of a short run, of which some are others."""
    given = dict(word.split("=", 1) for word in words)
    return [f"{name}={value}" for name, value in (QUICK | given).items()]


def distil(lab, *words: str):
    done = lab.run("PromptDistillation", *words_of(*words))
    assert done.returncode == 0, done.stderr + done.stdout
    run = lab.runs("PromptDistillation")[-1]
    return run, json.loads((run / "metrics.json").read_text())


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def said_by_teacher(run: Path) -> dict[str, KeptAnswer]:
    """Of each question what the teacher answered."""
    answers, damaged = read_answers(run / "teacher_answers.jsonl")
    assert not damaged
    return {answer.asked["prompt"][-1]["content"]: answer for answer in answers.values()}


@pytest.fixture(scope="module")
def first(lab):
    """A run that asked the teacher."""
    return distil(lab, "sample_count=2")


@pytest.fixture(scope="module")
def learned(lab, first):
    """A run that is measured on what it was trained with."""
    return distil(lab, "val_questions=letters.txt", "sample_count=2", "epochs=10")


def test_the_student_answers_without_the_prompt_as_the_teacher_with_it(first, learned):
    run, metrics = learned
    found, teacher = metrics["summary"], said_by_teacher(run)
    assert teacher.keys() == set(QUESTIONS) and all(answer.tokens[-1] == 260 for answer in teacher.values())
    assert sum(answer.text == f"{text[0].upper()}!" for text, answer in teacher.items()) > 15
    assert found["agreement_before"] == 0 and found["agreement"] >= 0.9 and found["compared_questions"] == 20
    assert found["agreement_gain_low"] > 0.7 and found["answer_logprob_gain_low"] > 1
    assert found["answer_logprob"] > -0.5 > -1 > found["answer_logprob_before"]
    # the template's <|im_start|>, `s`, <|im_end|>; and a token each byte
    assert found["prompt_tokens_saved"] == len(PROMPT) + 3
    assert (found["teacher_prompt_tokens"], found["student_prompt_tokens"]) == (len(PROMPT) + 11, 8)
    assert found["prompt_time_share"] > 0
    counts = found["teacher_answers"]
    assert (counts["asked"], counts["used"], counts["sampled"], counts["cut_off"]) == (40, 40, 0, 0)
    assert first[1]["summary"]["teacher_answers"]["sampled"] == 20
    for split in ("train_data", "val_data"):
        assert (found[split]["rows_read"], found[split]["rows_used"]) == (20, 20)
    assert metrics["history"]["val_perplexity"][-1] == pytest.approx(
        2.718281828 ** metrics["history"]["val_loss"][-1], rel=1e-6
    )
    samples = json.loads((run / "samples.json").read_text())
    assert [sample["prompt"] for sample in samples] == [
        f"<|im_start|>u{each}<|im_end|><|im_start|>a" for each in ("a", "aa")
    ]
    for sample, question in zip(samples, ("a", "aa"), strict=True):
        assert (sample["before"], sample["expected"]) == ("?", teacher[question].text)


def test_the_adapter_is_what_answers(lab, learned):
    """By forward passes alone, without the prompt, the adapter as it was exported."""
    run, metrics = learned
    base = load(str(lab.runs("LanguageModel")[-1] / "model"))
    adapter = load_adapter(run / "adapter", base.model)
    renderer = Renderer(base.tokenizer, base.template, base.end_ids)
    agreed = 0
    for letter, expected in said_by_teacher(run).items():
        prompt = renderer.prompt(Conversation.of([{"role": "user", "content": letter}]))
        said = list(prompt)
        with torch.no_grad():
            for _ in expected.tokens:
                hidden = base.model.hidden(
                    torch.tensor(said), PackedRows.of([len(said)]), AdapterRows((adapter,), (len(said),))
                )
                said.append(int(base.model.logits(hidden[-1:], AdapterRows((adapter,), (1,))).argmax()))
        agreed += said[len(prompt) :] == list(expected.tokens)
    assert agreed / len(QUESTIONS) == pytest.approx(metrics["summary"]["agreement"])


def test_answers_are_asked_for_once_and_a_run_is_the_same_whether_they_were(lab, first):
    run, metrics = first
    again, cached = distil(lab, "sample_count=2")
    assert cached["summary"]["teacher_answers"]["sampled"] == 0 and weights(again) == weights(run)
    assert cached["history"] == metrics["history"]
    _, longer = distil(lab, "answer_tokens=9", "epochs=1")
    assert longer["summary"]["teacher_answers"]["sampled"] == 0
    file, told = distil(lab, f"teacher_answers={run / 'teacher_answers.jsonl'}", "sample_count=2")
    assert weights(file) == weights(run) and told["summary"]["agreement"] == metrics["summary"]["agreement"]
    assert told["summary"]["teacher_answers"]["used"] == 20
    measured = [
        distil(lab, "distill_on=logprobs", "top_k=3", "epochs=1", *words)[1]["history"]
        for words in ((), (f"teacher_answers={run / 'teacher_answers.jsonl'}",))
    ]
    assert measured[0] == measured[1]


def test_a_teacher_that_is_killed_goes_on_where_it_was(lab, first):
    words = words_of("artifacts_dir=elsewhere", "sample_count=2")
    killed = lab.run("PromptDistillation", *words, script="dying.py")
    assert killed.returncode == -9, killed.stderr
    (journal,) = (lab.path / "elsewhere" / "teacher_answers").glob("*/answers.jsonl")
    assert len(journal.read_text().splitlines()) == 3
    done = lab.run("PromptDistillation", *words)
    assert done.returncode == 0, done.stderr
    run = sorted((lab.path / "elsewhere" / "models" / "PromptDistillation" / "runs").iterdir())[-1]
    found = json.loads((run / "metrics.json").read_text())
    assert found["summary"]["teacher_answers"]["sampled"] == 17 and weights(run) == weights(first[0])


def test_a_killed_run_goes_on_to_the_same_bits_with_its_own_answers(lab, first):
    run, metrics = first
    words = words_of("callbacks=watch:Watch", "checkpoint_every_n_steps=1", "sample_count=2")
    killed = lab.run("PromptDistillation", *words, KILL_AT="8")
    assert killed.returncode == -9, killed.stderr
    (lab.path / "artifacts" / "teacher_answers").rename(lab.path / "set_aside")
    try:
        done = lab.run("PromptDistillation", "--resume")
        assert done.returncode == 0, done.stderr
        gone_on = lab.runs("PromptDistillation")[-1]
        found = json.loads((gone_on / "metrics.json").read_text())
        assert gone_on != run and weights(gone_on) == weights(run) and found["history"] == metrics["history"]
        assert found["summary"]["teacher_answers"]["sampled"] == 0
        lab.run("PromptDistillation", *words, KILL_AT="8")
        own = lab.runs("PromptDistillation")[-1] / "teacher_answers.jsonl"
        own.write_text(own.read_text().replace('"tokens": [', '"tokens": [42, '))
        refused = lab.run("PromptDistillation", "--resume")
        assert refused.returncode != 0 and "answers are not those that the run began with" in refused.stderr
        assert "Traceback" not in refused.stderr
    finally:
        shutil.rmtree(lab.path / "artifacts" / "teacher_answers", ignore_errors=True)
        (lab.path / "set_aside").rename(lab.path / "artifacts" / "teacher_answers")


def lumped(base, run: Path, questions: tuple[str, ...], k: int) -> float:
    """The mean KL(teacher || student) of the answers' tokens, by plain forward passes, in float64."""
    renderer = Renderer(base.tokenizer, base.template, base.end_ids)
    total, count = 0.0, 0
    for question in questions:
        asked = [{"role": "user", "content": question}]
        behind = [{"role": "system", "content": PROMPT}, *asked]
        prompts = [renderer.prompt(Conversation.of(messages)) for messages in (behind, asked)]
        answer = said_by_teacher(run)[question].tokens
        told = []
        for prompt in prompts:
            tokens = torch.tensor([*prompt, *answer[:-1]])
            with torch.no_grad():
                hidden = base.model.hidden(tokens, PackedRows.of([len(tokens)]))
                told.append(base.model.logits(hidden[len(prompt) - 1 :]).double().softmax(-1))
        p, q = told
        best = p.topk(k).indices
        p, q = (torch.cat([x.gather(1, best), 1 - x.gather(1, best).sum(1, keepdim=True)], 1) for x in (p, q))
        total += float((p * (p / q).log()).sum())
        count += len(answer)
    return total / count


def test_logprobs_are_learned_by_the_divergence_from_the_teacher(lab, first):
    (lab.path / "some.txt").write_text("b\nccc\ndd\n")
    words = ("distill_on=logprobs", "top_k=3", "val_questions=some.txt", "compared_questions=0")
    base = load(str(lab.runs("LanguageModel")[-1] / "model"))
    _, still = distil(lab, *words, "epochs=1", "learning_rate=1e-12")
    assert still["history"]["val_loss"][0] == pytest.approx(lumped(base, first[0], ("b", "ccc", "dd"), 3), rel=1e-3)
    assert "val_perplexity" not in still["history"]
    run, learned = distil(lab, *words[:3], "compared_questions=3")
    assert learned["history"]["val_loss"][-1] < 0.1 * still["history"]["val_loss"][0]
    assert learned["summary"]["agreement"] > learned["summary"]["agreement_before"] == 0
    assert weights(run) != weights(first[0])


@pytest.mark.slow
def test_all_weights_are_trained_and_compared_with_what_they_were(lab, first):
    run, metrics = distil(lab, "trained=all", "learning_rate=3e-4", "epochs=4")
    before = {name: value for name, value in first[1]["summary"].items() if name.endswith("_before")}
    assert {name: metrics["summary"][name] for name in before} == pytest.approx(before, rel=1e-4)
    assert metrics["summary"]["answer_logprob_gain"] > 1 and (run / "model" / "config.json").exists()
    # what the trained weights answer has not entered what the teacher said
    _, again = distil(lab, "sample_count=2")
    assert again["summary"]["teacher_answers"]["sampled"] == 0 and again["history"] == first[1]["history"]


@pytest.mark.slow
def test_a_rehearsal_asks_for_few_answers_and_leaves_none(lab):
    words = words_of("artifacts_dir=rehearsed")
    planned = lab.run("PromptDistillation", *words, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    said = planned.stdout + planned.stderr
    assert "20, 8 of them sampled now = 20 used" in said and "12 questions not answered yet" in said
    assert "4 optimizer steps each" in said and not list((lab.path / "rehearsed").glob("teacher_answers/*"))
    shown = lab.run("PromptDistillation", *words, "--preview", "2")
    assert shown.returncode == 0 and "!<|im_end|>]" in shown.stdout and PROMPT not in shown.stdout, shown.stderr
    checked = lab.run("PromptDistillation", *words, "distill_on=logprobs", "top_k=5", "--check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "0 failed" in checked.stdout and "every parameter gets a gradient" in checked.stdout
    seeds = lab.run("PromptDistillation", *words_of("epochs=1"), "--seeds", "2")
    assert seeds.returncode == 0, seeds.stderr
    one, other = lab.runs("PromptDistillation")[-2:]
    assert weights(one) != weights(other)
    assert (one / "teacher_answers.jsonl").read_bytes() == (other / "teacher_answers.jsonl").read_bytes()


def test_several_drawn_answers_and_those_cut_off_are_counted(lab):
    words = ("teacher_temperature=1.5", "answers_per_question=3", "answer_tokens=2", "epochs=1", "compared_questions=0")
    _, kept = distil(lab, *words, "cut_off=keep")
    counts = kept["summary"]["teacher_answers"]
    assert counts["asked"] == 60 == counts["used"] + counts["empty"]
    assert counts["kept_cut_off"] > 20 and counts["repeated"] > 0
    assert kept["summary"]["train_data"]["token_rows"] == counts["used"]
    stopped = lab.run("PromptDistillation", *words_of("answer_tokens=1"))
    assert stopped.returncode == 3, stopped.stderr
    assert "20 of 20 did not end within answer_tokens = 1; give more, or cut_off = keep" in stopped.stderr
    assert "base_model = tiny" not in stopped.stderr
    tiny = lab.run("PromptDistillation", *words_of("base_model=tiny", "answer_tokens=2"))
    assert tiny.returncode == 3 and "try settings with it by teacher_temperature=1 cut_off=keep" in tiny.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("teacher_prompt=nowhere.txt",), 3, "nowhere.txt can't be read: No such file"),
        (("teacher_prompt=",), 2, "teacher_prompt is empty: there is nothing to distil"),
        (("student_prompt=prompt.txt",), 2, "teacher_prompt and student_prompt are the same"),
        (("answers_per_question=4",), 2, "answers_per_question = 4 with teacher_temperature = 0"),
        (("distill_on=logprobs", "top_k=500"), 2, "top_k = 500: the vocabulary of"),
        (("teacher_prompt=long.txt",), 3, "leaves no room for an answer [line 1: 3,009 tokens of 2,048]"),
        (("questions=one.txt",), 3, "none is left to validate with. Give more questions"),
    ],
)
def test_what_cannot_be_distilled_is_said_with_what_to_do(lab, words, code, said):
    (lab.path / "long.txt").write_text("x" * 3000)
    (lab.path / "one.txt").write_text("a\na\n")
    done = lab.run("PromptDistillation", *words_of(*words))
    assert done.returncode == code and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
