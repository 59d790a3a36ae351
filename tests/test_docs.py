"""README.md and docs/*.md keep their word: what they show is read, checked and run, page by page and in order.

A page's fenced blocks are what a reader may copy. Their language says what they are:

- ```sh      commands, one a line (`\\` at the end goes on; `# ...` is a comment). `make test` checks scripts, options,
             trainers and settings; `make test-all` runs each in a new process, in a copy of the project as users have
             it, one copy for each page, which has README's own trainer (`Digits`) too. `cd FOLDER` holds for the
             rest of the page; `menagerie` is that of the copy.
- ```python  is compiled, and run where `<!-- run -->` stands before it.
- ```ini     is read by the project's parser; keys and values of known sections are checked.
- no language, or another: output, which nobody checks. It may not look like commands.

HTML comments on the lines right before a block say what a test must know (a reader does not see them):

- `<!-- exit 2 -->`                  its commands end with this code instead of 0
- `<!-- test: epochs=1 -->`          words added to its `python train.py TRAINER` commands, so that they are short;
                                     a key that the command has already gets this value
- `<!-- not run: needs SLURM -->`    checked, but not run. `make`, `sbatch`, `pip`, `git` and `docker` never are, and
                                     need no such comment
- `<!-- needs: optuna -->`           run only where this package is installed
- `<!-- file: train/x_trainer.py -->`  the block is this file: it is written into the page's copy of the project
- `<!-- append: config.ini -->`      the block is added to the end of this file
- `<!-- served -->`                  runs against a service (tests/service/test_service_page.py), and not here
- `<!-- run -->`                     a ```python block is run as a script in the page's copy

`exit`, `test`, `needs` and `not run` may be for some commands alone, those that contain a text:
`<!-- exit [--replay] 2: no run has failed -->`, `<!-- not run [ModelZoo]: takes a minute -->`.

In commands RUN (or a run's id, such as 20261121-161716) stands for a run: the newest one, and the one before it where
two are named; runs that the page has not made are made before. NAME stands for a trainer. Where a command reads
`my_images/` or `photos/` (a folder for each class), `results.csv` (model,dataset,metric,value) or `other.ini`, it is
there. In a page's copy of config.ini `epochs` is 2 in all sections. Links must lead somewhere, and so must paths of
files in `backticks` that begin with a folder of the project.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doc_checks import code_problems, command_problems, link_problems
from doc_pages import PAGES, ROOT, Block, Command, blocks_of
from warm_python import run_python

_RUN_ID = re.compile(r"\b(?:RUN|\d{8}-\d{6}(?:-\d+)?)\b")
_TRAINER_FOR_NAME = "Digits"


# ---- what can be checked without running -----------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_is_known(page):
    problems = [*command_problems(page), *code_problems(page), *link_problems(page)]
    assert not problems, "\n".join(problems)


def test_readme_leads_to_every_page():
    text = (ROOT / "README.md").read_text()
    assert [page for page in PAGES[1:] if f"]({page}" not in text] == []


BAD_PAGE = """# A bad page

[here](nowhere.md) and [there](#no-such-heading), [fine](#a-bad-page), `train/nothing.py`, `train/registry.py:31`

```sh
python nothing.py
python train.py ModelAutoEncoder --bogus && python train.py --list
python train.py ModelAutoEncodr   # a comment with a 'quote
python train.py ModelAutoEncoder \\
  epohcs=3
make nothing
make train
sbatch nothing.sbatch
for name in
```

<!-- not run -->
```sh
python -m evaluation --tabel results.csv
```

```python
def forward(self):
    return (
```

```ini
[ModelAutoEncoderTrainer]
epochs = many
[NoSuchTrainer]
epochs = 1
```

```
python train.py ModelAutoEncoder
```
"""


def test_what_is_wrong_is_told_with_its_line(tmp_path):
    page = str(tmp_path / "bad.md")
    Path(page).write_text(BAD_PAGE)
    told = [*command_problems(page), *code_problems(page), *link_problems(page)]
    wanted = [
        ":6: python nothing.py: there is no such script: python nothing.py",
        ":7: python train.py ModelAutoEncoder --bogus && python train.py --list: train.py has no option --bogus",
        ":8: python train.py ModelAutoEncodr: unknown trainer 'ModelAutoEncodr'; did you mean ModelAutoEncoderTrainer ",
        ":9: python train.py ModelAutoEncoder   epohcs=3: command line: unknown key 'epohcs'; did you mean 'epochs'?",
        ":11: make nothing: the Makefile has no target nothing",
        ":13: sbatch nothing.sbatch: there is no script",
        ":14: for name in: bash: -c: line 2: syntax error",
        ":19: python -m evaluation --tabel results.csv: `not run` needs a reason",
        ":19: python -m evaluation --tabel results.csv: __main__.py has no option --tabel",
        ":24: '(' was never closed",
        ":28: there is no section [NoSuchTrainer]",
        ":29: command line: epochs = 'many': must be an integer",
        ":35: this looks like commands: write ```sh",
        ":3: there is no nowhere.md",
        ":3: the page has no heading #no-such-heading",
        ":3: there is no file train/nothing.py",
    ]
    assert [each[: len(f"{page}{want}")] for each, want in zip(told, wanted, strict=True)] == [page + w for w in wanted]


# ---- running --------------------------------------------------------------------------------------------------------


class Reader:
    """Somebody who does what a page says, in a project of their own."""

    def __init__(self, project: Any, page: str) -> None:
        self.project, self.page = project, page
        self.path: Path = project.path
        self.here = self.path  # `cd` of the page leads elsewhere

    def follow(self) -> list[str]:
        """Do all blocks in order; returns what went wrong, each with its line."""
        self._prepare()
        problems: list[str] = []
        for block in blocks_of(self.page):
            self.write(block)
            if block.language == "sh":
                problems += [problem for command in block.commands for problem in self._run(command)]
            elif block.language == "python" and block.note("run"):
                (self.path / "block.py").write_text(block.text)
                problems += self._call(block.where, "(the block)", ["block.py"], 0)
        return problems

    def _prepare(self) -> None:
        """Make what a reader has before a page begins."""
        from PIL import Image

        command = self.path.parent / "bin" / "menagerie"  # as pip would have written it
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {self.path}/menagerie.py "$@"\n')
        command.chmod(0o755)
        zoo = self.path / "data" / "zoo"
        if zoo.is_symlink():  # no command may write into the real one
            real = zoo.resolve()
            zoo.unlink()
            subprocess.run(["cp", "-r", str(real), str(zoo)], check=True)
        for folder in ("docs", "bench"):
            shutil.copytree(ROOT / folder, self.path / folder)
        settings = (self.path / "config.ini").read_text()
        (self.path / "config.ini").write_text(re.sub(r"^epochs = \d+", "epochs = 2", settings, flags=re.MULTILINE))
        for folder in ("my_images", "photos"):
            for place in range(24):
                path = self.path / folder / f"class_{place % 3}" / f"{place}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.frombytes("L", (16, 16), bytes((7 * place + place % 3 * spot) % 256 for spot in range(256))).save(
                    path
                )
        rows = [f"model_{model},dataset_{dataset},accuracy,{0.5 + 0.02 * model + 0.01 * (model * dataset % 5)}"
                for model in range(8) for dataset in range(8)]  # fmt: skip
        (self.path / "results.csv").write_text("\n".join(["model,dataset,metric,value", *rows]) + "\n")
        # Who reads on has written README's trainer; who has a project of their own wrote nothing into a checkout.
        if self.page not in ("README.md", "docs/own_projects.md"):
            for block in blocks_of("README.md"):
                self.write(block)
        (self.path / "other.ini").write_text((self.path / "config.ini").read_text())

    def write(self, block: Block) -> None:
        """Write the file that a block is."""
        if note := block.note("file"):
            (self.path / note.text).parent.mkdir(parents=True, exist_ok=True)
            (self.path / note.text).write_text(block.text)
        elif note := block.note("append"):
            self.project.append(note.text, "\n" + block.text)

    def _run(self, command: Command) -> list[str]:
        if command.not_run:
            return []
        if command.text.startswith("cd "):
            self.here = self.here / command.text.removeprefix("cd ")
            return []
        text = re.sub(r"\bNAME\b", _TRAINER_FOR_NAME, command.text)
        text = _with_settings(text, command.settings)
        wanted = len(_RUN_ID.findall(text))
        runs = iter(self._newest_runs(wanted))
        text = _RUN_ID.sub(lambda _: next(runs), text)
        return self._call(command.where, text, replace(command, text=text), command.exit_code)

    def _newest_runs(self, count: int) -> list[str]:
        """The ids of the newest runs, the newest first; short ones are made where there are too few."""
        found: list[str] = []
        while len(found) < count:
            runs = self.path.glob("artifacts/**/runs/*/metrics.json")
            found = [path.parent.name for path in sorted(runs, key=os.path.getmtime, reverse=True)][:count]
            if len(found) < count:
                made = self.project.run(_TRAINER_FOR_NAME, "epochs=2", "plot_at_end=off")
                assert made.returncode == 0, made.stderr
        return found

    def _call(self, where: str, shown: str, command: Command | list[str], exit_code: int) -> list[str]:
        done = self._started(command)
        if done.returncode == exit_code:
            return []
        told = "\n    ".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        return [f"{where}: {shown}\n    exit code {done.returncode}, not {exit_code}:\n    {told}"]

    def _started(self, command: Command | list[str]) -> subprocess.CompletedProcess:
        """Run a plain `python ...` as tests do, anything else in a shell in which `python` is this one."""
        if isinstance(command, list):
            return run_python(command, self.here)
        words = command.parts[0]
        if shlex.join(words) == shlex.join(shlex.split(command.text)):
            if words[0] == "python" and words[1] != "-c":
                return run_python(words[1:], self.here)
            if words[0] == "menagerie":
                return run_python([self.path / "menagerie.py", *words[1:]], self.here)
        path = os.pathsep.join([str(self.path.parent / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
        return subprocess.run(
            ["bash", "-c", command.text], cwd=self.here, env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip


def _with_settings(text: str, settings: tuple[str, ...]) -> str:
    """Add settings to a command, in place of those that it has of the same keys."""
    if not re.search(r"\b(train\.py|menagerie train) [A-Za-z]", text):
        return text
    for setting in settings:
        key = setting.partition("=")[0]
        text = re.sub(rf"\s{key}=\S+", "", text) + f" {setting}"
    return text


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_works(page, new_users_project):
    problems = Reader(new_users_project(), page).follow()
    assert not problems, "\n".join(problems)


@pytest.mark.slow
def test_what_does_not_work_is_told_with_its_line(new_users_project, tmp_path):
    page = str(tmp_path / "bad.md")
    text = "<!-- exit [--list] 2 -->\n```sh\npython train.py --list\npython plot.py --help\ncat no_such_file\n```\n"
    text += "<!-- needs: no_such_package -->\n```sh\nfalse\n```\n<!-- not run: it fails -->\n```sh\nfalse\n```\n"
    Path(page).write_text(f"{text}\n<!-- run -->\n```python\nimport train\n1 / 0\n```\n")
    told = Reader(new_users_project(), page).follow()
    assert [each.splitlines()[:2] for each in told] == [
        [f"{page}:3: python train.py --list", "    exit code 0, not 2:"],
        [f"{page}:5: cat no_such_file", "    exit code 1, not 0:"],
        [f"{page}:18: (the block)", "    exit code 1, not 0:"],
    ]
    assert "ZeroDivisionError" in told[2]


_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w-])")
_OF_THE_DAY = re.compile(r"\S*20\d{6}-\d{6}\S*|done in \S+( s)?|up to \S+( s)? left")


def _told_apart(line: str) -> tuple[list[str], list[float]]:
    """Take a line of output apart: its words, and its numbers; runs' names and times are left out."""
    line = re.sub(r"\S*/data/zoo", "data/zoo", _OF_THE_DAY.sub("", line))
    return _NUMBER.sub("", line).split(), [float(number) for number in _NUMBER.findall(line)]


def _is_shown(line: str, output: list[tuple[list[str], list[float]]]) -> bool:
    words, numbers = _told_apart(line)
    # A line of the log begins with its time. Another processor rounds otherwise, and a ranker that is trained on it
    # differs in the last digits.
    return any(
        all(word in own for word in words)
        and (not numbers or numbers == pytest.approx(values[-len(numbers) :], rel=0.03, abs=0.02))
        for own, values in output
        if len(values) >= len(numbers)
    )


@pytest.mark.slow
def test_the_readmes_first_screen_is_what_one_sees(new_users_project):
    project = new_users_project()
    (target,) = re.findall(r"^train:.*\n((?:.+\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "train.py $(TRAINER)" in target and "recommend.py $(TASK) --top 5" in target
    trained = project.run("SimilarityTransformer", "plot_at_end=off")
    advised = run_python(["recommend.py", "hebrew-4", "--top", "5"], project.path)
    output = [_told_apart(line) for line in f"{trained.stdout}{trained.stderr}{advised.stdout}".splitlines()]
    screens = [block.text for block in blocks_of("README.md") if not block.language]
    shown = [line for line in "".join(screens).splitlines() if line not in ("", "...")]
    assert len(shown) > 15 and [line for line in shown if not _is_shown(line, output)] == []
    assert not _is_shown(shown[0].replace("train_loss 4", "train_loss 5"), output), "a wrong figure is seen"


def test_the_readmes_trainer_learns(users_project):
    for block in blocks_of("README.md"):
        Reader(users_project, "README.md").write(block)
    done = users_project.run("Digits", "plot_at_end=off")
    assert done.returncode == 0, done.stderr
    history = json.loads((users_project.runs("Digits")[-1] / "metrics.json").read_text())["history"]
    assert history["val_accuracy"][-1] > 0.85
