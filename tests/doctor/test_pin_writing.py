"""Pins in files: what is not theirs stays byte for byte."""

import os
import tomllib

import pytest

from doctor.finding import Change
from doctor.remedy.pin_writing import write_pins

PIN = Change("pin", "Hold peft below 0.14.", requirements=("peft<0.14",), holds=("transformers<4.43",))
WHY = "doctor: while transformers<4.43"


def written(tmp_path, name, text, change=PIN):
    path = tmp_path / name
    path.write_bytes(text.encode())
    shown = write_pins(change, str(path))
    assert path.read_bytes() == text.encode() and not shown.written  # only shown until asked
    edit = write_pins(change, str(path), write=True)
    assert edit.diff == shown.diff
    return path.read_bytes().decode(), edit


@pytest.mark.parametrize(
    "before, after",
    [
        ("", f"peft<0.14  # {WHY}\n"),
        ("# ours\nnumpy==1.26.4", f"# ours\nnumpy==1.26.4\npeft<0.14  # {WHY}\n"),
        ("a\r\npeft == 0.14.0\r\nb\r\n", f"a\r\npeft<0.14  # {WHY}\r\nb\r\n"),
        ("PEFT>=0.10  # tuned\nb", f"PEFT>=0.10,<0.14  # {WHY}; tuned\nb"),
        ("peft[x]>=0.10,<1; python_version > '3.8'\n", f'peft[x]>=0.10,<0.14; python_version > "3.8"  # {WHY}\n'),
        ("peft>=0.15\n", f"peft<0.14  # {WHY}\n"),
        ("peft-tools==1\n", f"peft-tools==1\npeft<0.14  # {WHY}\n"),
        ("-r more.txt\n--pre\npeft\n", f"-r more.txt\n--pre\npeft<0.14  # {WHY}\n"),
        ("peft==0.13.2\n", "peft==0.13.2\n"),
        (f"peft<0.14  # {WHY}\n", f"peft<0.14  # {WHY}\n"),
    ],
)  # fmt: skip
def test_requirements_file(tmp_path, before, after):
    text, edit = written(tmp_path, "requirements.txt", before)
    assert (text, edit.refusal) == (after, None)
    assert edit.written is (before != after) and bool(edit.diff) is (before != after)


@pytest.mark.parametrize(
    "text, why",
    [("peft==0.14.0 \\\n    --hash=sha256:aa\n", "line 1 has hashes"), ("a==1 --hash=sha256:aa\n", "have hashes"),
     ("peft @ git+https://x/peft\n", "names a URL"),
     ("peft; python_version<'3.9'\npeft>=1; python_version>='3.9'\n", "(1, 2)")],
)  # fmt: skip
def test_lines_that_are_not_edited(tmp_path, text, why):
    after, edit = written(tmp_path, "requirements.txt", text)
    assert after == text and why in edit.refusal and not edit.written
    assert edit.paste == (f"peft<0.14  # {WHY}",)


PYPROJECT = """\
# The project
[project]
name = "x"   # a name
dependencies = [
    "numpy",  # arrays
    'peft >= 0.10', # tuned
    "torch"   # [heavy]
]

[dependency-groups]
dev = ["pytest", "peft==0.14.0"]
other = [{include-group = "dev"}]

[tool.x]
dependencies = ["peft"]
"""


def test_pyproject_keeps_comments_and_layout(tmp_path):
    text, edit = written(tmp_path, "pyproject.toml", PYPROJECT)
    assert edit.refusal is None
    assert text == PYPROJECT.replace("'peft >= 0.10', # tuned", f"'peft>=0.10,<0.14',  # {WHY}; tuned").replace(
        'dev = ["pytest", "peft==0.14.0"]', f'# {WHY}\ndev = ["pytest", "peft<0.14"]'
    )


@pytest.mark.parametrize(
    "before, after",
    [
        ('dependencies = []', f'dependencies = [\n    "peft<0.14",  # {WHY}\n]'),
        ('dependencies = ["a", "b"]', f'# {WHY}\ndependencies = ["a", "b", "peft<0.14"]'),
        ('dependencies = ["a",\n  "b"  # z\n  ]', f'dependencies = ["a",\n  "b",  # z\n  "peft<0.14",  # {WHY}\n]'),
        ('dependencies = [\n  "a",\n  # end\n]', f'dependencies = [\n  "a",\n  # end\n  "peft<0.14",  # {WHY}\n]'),
        ('dependencies = [\n  "a"]', f'dependencies = [\n  "a",\n  "peft<0.14",  # {WHY}\n]'),
    ],
)  # fmt: skip
def test_pyproject_gets_a_pin_that_it_did_not_have(tmp_path, before, after):
    head = '[project]\nname = "x"\n'
    text, edit = written(tmp_path, "pyproject.toml", f"{head}{before}\n[tool.y]\na = 1\n")
    assert edit.refusal is None and text == f"{head}{after}\n[tool.y]\na = 1\n"
    assert "peft<0.14" in tomllib.loads(text)["project"]["dependencies"]
    assert written(tmp_path, "pyproject.toml", text)[0] == text  # a second time there is nothing to do


@pytest.mark.parametrize(
    "text, why, paste",
    [('[tool.poetry.dependencies]\npeft = "^0.14"\n', "tool.poetry", 'peft = "<0.14"'),
     ('[project]\nname="x"\ndynamic = ["dependencies"]\n', "dynamic", "peft<0.14"),
     ('[project\n', "not a TOML", "peft<0.14"),
     ('[project]\ndependencies = ["peft @ file:///x"]\n', "names a URL", "peft"),
     ('[project]\nname="x"\n', "no list", "dependencies = ["),
     ('project.dependencies = ["a"]\n', "plain list", "peft")],
)  # fmt: skip
def test_a_pyproject_that_is_not_edited(tmp_path, text, why, paste):
    after, edit = written(tmp_path, "pyproject.toml", text)
    assert after == text and why in edit.refusal and paste in edit.paste[0]


def test_a_script_with_a_block(tmp_path):
    head = '#!/usr/bin/env python\n# /// script\n# requires-python = ">=3.11"\n'
    before = f'{head}# dependencies = [\n#   "peft",\n#\n#   "rich",\n# ]\n# ///\nimport peft\n'
    text, edit = written(tmp_path, "train_it.py", before)
    assert edit.refusal is None and text == before.replace('#   "peft",', f'#   "peft<0.14",  # {WHY}')


def test_a_script_without_a_block_gets_one_behind_its_first_line(tmp_path):
    text, _ = written(tmp_path, "train_it.py", "#!/usr/bin/env python\nimport peft\n")
    block = f'# /// script\n# dependencies = [\n#     "peft<0.14",  # {WHY}\n# ]\n# ///\n'
    assert text == f"#!/usr/bin/env python\n{block}\nimport peft\n"
    assert written(tmp_path, "train_it.py", text)[0] == text


def test_other_files_are_not_touched(tmp_path):
    text, edit = written(tmp_path, "environment.yml", "peft\n")
    assert text == "peft\n" and "environment.yml" in edit.refusal
    assert "No such file" in write_pins(PIN, str(tmp_path / "none.txt"), write=True).refusal
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    assert "cannot be read" in write_pins(PIN, str(tmp_path / "latin.txt"), write=True).refusal


def test_mode_link_and_mark_stay(tmp_path):
    real = tmp_path / "real.txt"
    real.write_bytes(b"\xef\xbb\xbfpeft\n")
    real.chmod(0o640)
    link = tmp_path / "requirements.txt"
    link.symlink_to(real)
    assert write_pins(PIN, str(link), write=True).written
    assert link.is_symlink() and real.read_bytes() == f"\ufeffpeft<0.14  # {WHY}\n".encode()
    assert os.stat(real).st_mode & 0o777 == 0o640 and len(list(tmp_path.iterdir())) == 2
