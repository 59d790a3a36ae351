"""`--chat`: through a pipe and at a terminal, with runs, exported folders and base models."""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("gguf")

from warm_python import run_python

from llm.base_model import load
from llm.model_export import export_model

ANSWERS = {"Hi": "Aé😀!", "Who?": "Me, the one\nof two lines."}
ROW = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def lab(shared_project):
    """A run of an adapter, one of all weights, and a model that talks for longer than anybody listens."""
    rows = [{"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}
            for asked, said in ANSWERS.items()]  # fmt: skip
    data = shared_project.path / "two.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = (
        "LanguageModel", "plot_at_end=off", "base_model=tiny", f"train_data={data}", f"val_data={data}",
        "validate_every_n_epochs=12", "saving_share=0.05",
    )  # fmt: skip
    adapter = shared_project.run(*words, "epochs=12", "learning_rate=1e-2", "sample_count=2")
    assert adapter.returncode == 0, adapter.stderr
    whole = shared_project.run(*words, "epochs=60", "learning_rate=3e-3", "trained=all", "--name", "whole")
    assert whole.returncode == 0, whole.stderr
    folder = shared_project.path / "endless"
    export_model(folder, load("tiny"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 200_000}))
    return shared_project


def talk(lab, *words: str, said: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Run train.py with a text on its standard input."""
    typed = said.encode("utf-8", "surrogateescape")
    done = run_python([lab.path / "train.py", *words], cwd or lab.path, typed=typed)
    assert "Traceback" not in done.stderr
    return done


def test_answers_alone_go_to_a_pipe_and_are_those_of_the_run(lab):
    run = lab.runs("LanguageModel")[0]
    samples = {sample["place"]: sample for sample in json.loads((run / "samples.json").read_text())}
    said = (
        "/temperature 0\n/max_tokens 100\n"
        "Hi\n/compare off\n/reset\nWho?\n/compare\n"
        + json.dumps(ROW) + "\n" + json.dumps({"messages": [*ROW["messages"], {"role": "assistant", "content": "?"}]})
        + "\n" + json.dumps({"prompt": "abc", "id": 7}) + "\n"
    )  # fmt: skip
    done = talk(lab, "LanguageModel", "--chat", run.name, "compare=on", said=said)
    assert done.returncode == 0, done.stderr
    hi, who = samples["line 1"], samples["line 2"]
    talked, rows = done.stdout[: done.stdout.index("{")], done.stdout[done.stdout.index("{") :].splitlines()
    assert talked == f"{hi['answer']}\n{hi['before']}\n{who['answer']}\n{who['before']}\n"
    first, again, plain = map(json.loads, rows)
    assert first == again == {
        "messages": [*ROW["messages"], {"role": "assistant", "content": hi["answer"]}], "finish": hi["finish"],
    }  # fmt: skip
    assert (plain["prompt"], plain["id"], len(plain)) == ("abc", 7, 4)
    told = done.stderr
    assert "base model tiny: 1,017,600 parameters in float32, context 2,048 tokens" in told
    assert f"adapter {run / 'model.safetensors'}: rank 16" in told
    assert "7 answers, " in told


@pytest.mark.slow
def test_an_exported_folder_is_the_run(lab):
    whole = lab.runs("LanguageModel")[1]
    said = "Hi\nHi\n/retry\n"
    answers = [
        talk(lab, *words, "temperature=0", "max_tokens=60", said=said, cwd=cwd)
        for words, cwd in (
            (("--chat", "whole"), None), (("LanguageModel", "--chat"), None), (("--chat", "model"), whole),
        )
    ]  # fmt: skip
    assert [done.returncode for done in answers] == [0, 0, 0], answers[-1].stderr
    assert answers[0].stdout == answers[1].stdout == answers[2].stdout
    first, second, third = answers[0].stdout.removesuffix("\n").split("\n")
    assert first == ANSWERS["Hi"] and third == second  # what was said before is read in the second
    assert f"model {whole / 'model.safetensors'}" in answers[0].stderr and "trained from tiny" in answers[0].stderr


def test_a_conversation_is_saved_as_it_can_be_trained_on(lab):
    file = lab.path / "saved.jsonl"
    said = f"Hi\n/save {file}\n/max_tokens 2\nWho?\n/system Be é.\n/save {file}\n/save {file}.txt\n"
    done = talk(lab, "--chat", "whole", "temperature=0", "max_tokens=60", said=said)
    assert done.returncode == 3 and "error: line 7: " in done.stderr
    assert f"{file}.txt does not end in .jsonl, by which training knows what it is" in done.stderr
    assert f"added to {file}, which holds 2 conversations" in done.stderr
    first, second = (json.loads(line)["messages"] for line in file.read_text().splitlines())
    assert first == [*ROW["messages"], {"role": "assistant", "content": ANSWERS["Hi"]}]
    assert second[:3] == [{"role": "system", "content": "Be é."}, *first]
    assert second[4] == {**second[4], "role": "assistant", "weight": 0}
    assert "answer 2: cut off at max_tokens" in done.stderr
    shown = lab.run("LanguageModel", "--preview", "base_model=tiny", f"train_data={file}", f"val_data={file}")
    assert shown.returncode == 0, shown.stderr
    assert re.findall(r"\[(.*?<\|im_end\|>)\]", shown.stdout) == [f"{ANSWERS['Hi']}<|im_end|>"] * 2


def test_a_full_context_is_told_and_what_does_not_fit_is_refused(lab):
    said = "".join(f"{letter * 600}\n" for letter in "abcd") + "x" * 2100 + "\ny\n" + json.dumps({"prompt": "z" * 2048})
    done = talk(lab, "--chat", "whole", "temperature=0", "max_tokens=4", said=said)
    assert done.returncode == 3
    assert done.stderr.count("the context of 2,048 tokens is full") == 1
    assert "the oldest 1 turn of 4 are no longer read by the model" in done.stderr
    assert re.search(r"error: line 5: this is 2,1\d\d tokens, and the model's context is 2,048", done.stderr)
    assert "error: line 7: this is 2,048 tokens, and the model's context is 2,048" in done.stderr
    assert "error" in json.loads(done.stdout.splitlines()[-1])
    assert "5 answers, " in done.stderr and "2 could not be answered" in done.stderr


def test_input_that_is_no_text_and_commands_that_there_are_not(lab):
    said = "/tempreature 1\n/temperature -1\n/temperature warm\n/undo\n//quit\n{bad\n{}\n\udcff\n\n/quit\nHi\n"
    done = talk(lab, "--chat", "whole", "max_tokens=1", said=said)
    assert done.returncode == 3
    for line, told in (
        (1, "there is no command /tempreature; did you mean /temperature? /help shows all"),
        (2, "temperature is -1.0; allowed are numbers of 0 or more"),
        (3, "/temperature warm: it must be a number"),
        (4, "there is nothing to undo"),
        (6, "no JSON"),
        (7, 'a row needs "messages", a list of role and content, or "prompt"'),
        (8, "half a character"),
    ):
        assert f"error: line {line}: {told}" in done.stderr
    assert "1 answer, 1 token in" in done.stderr  # to `/quit`, and none after the end


def test_models_that_can_not_be_asked(lab):
    run = lab.runs("LanguageModel")[0]
    damaged, other, empty = (lab.path / name for name in ("damaged", "other", "empty"))
    for folder in (damaged, other, empty):
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints"))
    (damaged / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:-100])
    record = json.loads((run / "language_model.json").read_text())
    (other / "language_model.json").write_text(json.dumps(record | {"base_model": "tiny:1"}))
    (empty / "model.safetensors").unlink()
    for words, code, told in (
        (("LanguageModel", "--chat", "smolm2"), 2, "Did you mean the base model smollm2? Allowed are a run"),
        (("--chat", "damaged"), 3, "damaged/model.safetensors is damaged: "),
        (
            ("--chat", "other"),
            3,
            "was trained over tiny:1 (digest tiny:0, std 0.1); its weights are others now (digest tiny:1, std 0.1)",
        ),
        (("--chat", "empty"), 3, "run empty has no model.safetensors: it has not come to the end of a validation"),
        (("ModelAutoEncoder", "--chat"), 2, "there is no run 'ModelAutoEncoder'"),
        (("LanguageModel", "--chat", "--resume"), 2, "--chat and --resume don't go together"),
        (("LanguageModel", "--chat", "tempreature=1"), 2, "unknown key 'tempreature'; did you mean 'temperature'?"),
        (("--chat", "tiny", "compare=on"), 2, "compare: this is the base model: there is nothing to compare it with"),
        (("--chat", "tiny", "device=cuda:9"), 2, "device = 'cuda:9' can't be used here"),
    ):
        done = lab.run(*words)
        assert done.returncode == code and told in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr and not done.stdout


def _own_terminal() -> None:
    """Let Ctrl-C on the terminal that is the standard input be a signal to this process."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Typist:
    """A person at a terminal."""

    def __init__(self, project, *words: str) -> None:
        self.master, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, project.path / "train.py", *words], cwd=project.path, stdin=terminal, stdout=terminal,
            stderr=terminal, env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "TERM": "xterm"},
            start_new_session=True, preexec_fn=_own_terminal,
        )  # fmt: skip
        os.close(terminal)
        self.seen = b""

    def until(self, text: str) -> str:
        """Read until a text comes; returns what was read."""
        start = len(self.seen)
        while text.encode() not in self.seen[start:]:
            assert select.select([self.master], [], [], 120)[0], self.seen
            self.seen += self._read()
        return self.seen[start:].decode(errors="replace")

    def says(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupts(self, text: str) -> None:
        """Press Ctrl-C until a text comes: Python overlooks one that comes just before it waits for a key."""
        start = len(self.seen)
        self.says("\x03")
        while text.encode() not in self.seen[start:]:
            if select.select([self.master], [], [], 5)[0]:
                self.seen += self._read()
            else:
                self.says("\x03")

    def end(self) -> tuple[int, str]:
        """Read the rest; returns the exit code and all that was seen."""
        while part := self._read():
            self.seen += part
        code = self.process.wait(60)
        os.close(self.master)
        return code, self.seen.decode(errors="replace")

    def _read(self) -> bytes:
        try:
            return os.read(self.master, 1)  # so that a part of a character would be seen
        except OSError:  # its other end is closed
            return b""


def test_a_person_at_a_terminal(lab):
    person = Typist(lab, "--chat", "whole", "temperature=0", "max_tokens=60")
    person.until("Ctrl-D ends")
    person.until("> ")
    person.says("Hi\n")
    assert f"\r\n{ANSWERS['Hi']}\r\n[" in person.until("context ") and "the first after " in person.seen.decode()
    person.until("> ")
    person.says("/undo\n")
    person.until("0 turns left")
    person.until("> ")
    person.says("Wh\\\n")
    person.until(". ")
    person.says("o\n/compare\n")
    person.until("base model:")
    person.until("> ")
    person.says("not sent")
    person.until("not sent")  # Python has the terminal now
    person.interrupts("Ctrl-D or /quit ends the chat")
    person.until("> ")
    person.says("\x04")
    code, seen = person.end()
    assert code == 0 and "\033[2m" not in seen and "\ufffd" not in seen.split("base model:")[0]


def test_ctrl_c_stops_an_answer_and_not_the_chat(lab):
    person = Typist(lab, "--chat", "endless", "temperature=0")
    person.until("> ")
    person.says("Hi\n")
    person.until("\n")
    assert person._read()  # it has begun
    person.says("\x03")
    person.until("[stopped; ")
    person.until("> ")
    person.says("/quit\n")
    assert person.end()[0] == 0
