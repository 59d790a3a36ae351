"""`--preview`: the rows of a trainer of text, from the command line of a user."""

import runpy
from pathlib import Path

import pytest

pytest.importorskip("transformers")

SAMPLES = Path(__file__).resolve().parent.parent / "data" / "chat_samples.py"
TRAINER = '''
"""A trainer of text (sample)."""

from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from config import ConfigParser
from config.text_trainer_config import TextTrainerConfig
from data.chat_renderer import Renderer
from data.conversations import open_source
from data.text_preview import preview
from data.token_batches import TokenBatches
from data.token_rows import token_rows
from chat_samples import byte_tokenizer
from train.base_trainer import BaseTrainer


class TextTrainer(BaseTrainer):
    """Learns text (sample)."""

    def __init__(self) -> None:
        self.config = ConfigParser.get(TextTrainerConfig)
        self.renderer = Renderer(byte_tokenizer())
        rows, self.account = token_rows(open_source(Path("data.jsonl")), self.renderer, 64)
        self.model = nn.Sequential(nn.Embedding(300, 8), nn.Linear(8, 300))
        self.train_loader = self.val_loader = TokenBatches(rows, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=self.config.learning_rate)
        self.scheduler = ReduceLROnPlateau(self.optimizer)
        self.init_progress_bar(total=1)
        super().__init__()

    def preview(self, count: int, colour: bool) -> list[str]:
        """Show rows."""
        shown = [self.train_loader.token_row(n) for n in range(min(count, len(self.train_loader.dataset)))]
        return preview(shown, [self.account], self.renderer, count, colour)

    def compute_loss(self, batch):
        """The mean over trained tokens."""
        self._set_loss_count(batch.total_weight)
        return nn.functional.cross_entropy(self.model(batch.tokens[batch.places]), batch.targets)
'''
CONFIG = '''
"""Settings of the trainer of text (sample)."""

from dataclasses import dataclass

from config import BaseTrainerConfig


@dataclass
class TextTrainerConfig(BaseTrainerConfig):
    """Settings of the trainer of text (sample)."""
'''
ROW = '{"messages": [{"role": "user", "content": "Hi %d"}, {"role": "assistant", "content": "Ok"}]}\n'
LONG = ROW.replace("Hi", "Hi" + "q" * 200)


@pytest.fixture(scope="module")
def text_project(users_project):
    (users_project.path / "train" / "text_trainer.py").write_text(TRAINER)
    (users_project.path / "config" / "text_trainer_config.py").write_text(CONFIG)
    (users_project.path / "chat_samples.py").write_text(SAMPLES.read_text())
    users_project.append("config.ini", "\n[TextTrainer]\nepochs = 1\nlearning_rate = 0.1\nplot_at_end = off\n")
    return users_project


def test_rows_are_shown_as_they_are_trained_on(text_project):
    data = text_project.path / "data.jsonl"
    data.write_text(ROW % 1 + LONG % 2 + "{\n" + ROW % 4 + ROW % 5 + ROW % 6)
    shown = text_project.run("Text", "--preview")
    assert shown.returncode == 0, shown.stderr
    assert "JSON lines, format messages" in shown.stdout and "rows: 6 read = 4 used + 2 left out" in shown.stdout
    assert shown.stdout.count("[Ok<|im_end|>]") == 3 and "--- row 2, line 4:" in shown.stdout
    assert "\033" not in shown.stdout
    one = text_project.run("Text", "--preview", "1", FORCE_COLOR="1")
    assert one.stdout.count("\033[1;32mOk<|im_end|>\033[0m") == 1 and "--- row 2" not in one.stdout
    assert not (text_project.path / "artifacts" / "models" / "Text" / "runs").exists()


def test_nothing_to_learn_stops_before_the_first_step(text_project):
    (text_project.path / "data.jsonl").write_text("".join(LONG % n for n in range(8)))
    for words in ((), ("--preview", "3")):
        stopped = text_project.run("Text", *words)
        assert stopped.returncode == 3
        assert "8 of 8 rows are longer than max_length=64: they need 2" in stopped.stderr


def test_the_language_model_trainer_shows_its_rows(text_project):
    (text_project.path / "data.jsonl").write_text(ROW % 1 + ROW.replace("Ok", "") % 2 + ROW % 3)
    shown = text_project.run("LanguageModel", "--preview", "9", "base_model=tiny", "train_data=data.jsonl")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("--- row") == 2  # the third validates
    assert (shown.stdout + shown.stderr).count("rows: 3 read = 3 used + 0 left out") == 1
    assert "1 row: an answer is empty: only the end of its turn is trained on [line 2]" in shown.stdout
    assert "<|im_start|>assistant\n[Ok<|im_end|>]" in shown.stdout or "\n[<|im_end|>]" in shown.stdout


def test_a_template_of_ones_own_is_shown_with_what_it_adds(text_project):
    """What begins the text is there once, and a system message of the template's own is told."""
    template = text_project.path / "own.jinja"
    template.write_text("{{ bos_token }}" + runpy.run_path(str(SAMPLES))["DROPS_THOUGHTS"])
    terse = '{"messages": [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Hi"}, '
    terse += '{"role": "assistant", "content": "Ok"}]}\n'
    (text_project.path / "data.jsonl").write_text(ROW % 1 + terse + ROW % 3)
    words = ("base_model=tiny", "train_data=data.jsonl", "val_data=data.jsonl", f"template={template}")
    shown = text_project.run("LanguageModel", "--preview", "9", *words)
    assert shown.returncode == 0, shown.stderr
    head, *rows = shown.stdout.split("--- row ")
    assert len(rows) == 3
    assert "without a system message the template adds: <|im_start|>system\nYou are a helpful assistant." in head
    assert "2 rows: the template added" in head and "[line 1, line 3]" in head
    assert [row.count("You are a helpful assistant.") for row in rows] == [1, 0, 1]
    assert [row.count("Be terse.") for row in rows] == [0, 1, 0]
    for row in rows:
        assert row.count("<bos>") == 1 and "ids: 256 259 " in row and "[Ok<|im_end|>]" in row


def test_a_template_that_is_refused_is_told_and_hinders_no_rows_without_one(text_project):
    template, data = text_project.path / "endless.jinja", text_project.path / "data.jsonl"
    template.write_text(runpy.run_path(str(SAMPLES))["NO_END"])
    data.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n')
    words = ("base_model=tiny", f"train_data={data}", f"val_data={data}", f"template={template}", "--preview", "1")
    shown = text_project.run("LanguageModel", *words)
    assert shown.returncode == 0, shown.stderr
    assert "conversations can't be used: the chat template writes no special token" in shown.stdout
    assert "a[b<eos>]" in shown.stdout
    data.write_text(ROW % 1 + ROW % 2)
    refused = text_project.run("LanguageModel", *words)
    assert refused.returncode == 3 and "a model trained with it never learns to stop" in refused.stderr


def test_a_trainer_without_text_says_so(text_project):
    refused = text_project.run("ModelAutoEncoder", "--preview")
    assert refused.returncode == 2 and "ModelAutoEncoderTrainer has no text to preview" in refused.stderr
    assert "Traceback" not in refused.stderr
    wrong = text_project.run("Text", "--preview", "0")
    assert wrong.returncode == 2 and "'0' is no number of rows; show 1 or more" in wrong.stderr
