"""What files declare, by the doctor's door: each kind, its odd lines, its mistakes."""

import json

import pytest
from doctor_program import here

UV_LOCK = """version = 1
requires-python = ">=3.11"

[[package]]
name = "app"
version = "0.1"
source = { virtual = "." }

[[package]]
name = "numpy"
version = "1.26.4"
source = { registry = "https://pypi.org/simple" }
resolution-markers = ["sys_platform == 'win32'"]

[[package]]
name = "numpy"
version = "2.2.6"
source = { registry = "https://pypi.org/simple" }
resolution-markers = ["sys_platform != 'win32'"]

[[package]]
name = "peft"
version = "0.14.0"
source = { registry = "https://pypi.org/simple" }
wheels = [{ url = "https://files/peft-0.14.0-py3-none-any.whl" }]
"""
PYLOCK = """lock-version = "1.0"
environments = ["sys_platform == 'win32'"]
requires-python = ">=3.11"
created-by = "uv"

[[packages]]
name = "torch"
version = "2.6.0"
wheels = [{ name = "torch-2.6.0-cp312-cp312-win_amd64.whl" }]
"""


def declared(capfd, path, *words):
    answer = here(capfd, path, "--json", *words)
    assert answer.code in (0, 1), answer.err
    return {one["name"]: (one["specifier"], one["place"].removeprefix(str(path))) for one in
            answer.json["facts"]["declared"]}  # fmt: skip


def test_requirements_as_pip_reads_them(tmp_path, capfd):
    path = tmp_path / "requirements.txt"
    (tmp_path / "more.txt").write_text("datasets>=2\n-r requirements.txt\n")
    path.write_bytes(
        "\ufeff# comment\r\n--index-url https://me:secret12345@host/simple\r\n"
        "peft==0.14.0 \\\r\n  --hash=sha256:abc  # why\r\n"
        "Trans_Formers>=4.40,<5 # c\r\n-r more.txt\r\nuvloop; sys_platform == 'win32'\r\n"
        "-e git+https://me:secret12345@github.com/x/y.git@v1#egg=Some_Egg\r\n./wheels/trl-0.7.11-py3-none-any.whl\r\n"
        "C:\\wheels\\accelerate-1.0.1-py3-none-any.whl\r\nhttps://host/torch-2.6.0%2Bcu124-cp311-cp311-linux_x86_64.whl\r\n"
        "bits @ https://me:secret12345@host/bits-1.2-py3-none-any.whl\r\naccelerate[extra]\r\n".encode()
    )  # fmt: skip
    found = declared(capfd, path)
    assert found["peft"] == ("==0.14.0", ":3") and found["trans-formers"][0] == "<5,>=4.40"
    assert found["some-egg"] == ("", ":8") and found["trl"][0] == "==0.7.11" and found["bits"][0] == "==1.2"
    assert found["torch"][0] == "==2.6.0+cu124" and found["datasets"][0] == ">=2" and "uvloop" not in found
    assert declared(capfd, path, "--fact", "system=windows")["uvloop"] == ("", ":7")
    assert "secret12345" not in here(capfd, path, "--json").out


def test_all_mistakes_are_told_at_once_with_their_lines(tmp_path, capfd):
    path = tmp_path / "requirements.txt"
    path.write_text("good\nnumpy=1.2\ntorch 2.0\n--frobnicate\n-r nowhere.txt\nalso==1\nfine\nwell\n")
    answer = here(capfd, path)
    assert answer.code == 2
    for said in (":2: 'numpy=1.2' is no requirement (a single = is conda's: numpy==1.2)", "torch==2.0",
                 ":4: pip knows no option --frobnicate", ":5: ", "nowhere.txt is not there",
                 "a line is a requirement"):  # fmt: skip
        assert said in answer.err, said
    path.write_text("def f():\n    return {}\n\nclass A:\n  x = [1]\n")
    assert "is no requirements file" in here(capfd, path).err


def test_pyproject_with_groups_extras_overrides_and_poetry(tmp_path, capfd):
    path = tmp_path / "pyproject.toml"
    path.write_text(
        "[project]\nname = 'x'\nrequires-python = '>=3.11'\ndependencies = ['peft==0.14.0', 'numpy']\n"
        "[project.optional-dependencies]\ngpu = ['bitsandbytes>=0.45']\n"
        "[dependency-groups]\ndev = ['pytest>8', {include-group = 'a'}]\n"
        "a = []\n[tool.uv]\noverride-dependencies = ['numpy<2']\n"
        "[tool.uv.extra-build-dependencies]\nflash-attn = ['torch']\n"
        "[tool.poetry.dependencies]\npython = '^3.10'\nrich = '^13.2'\nclick = {version = '~8.1', extras = ['x']}\n"
    )  # fmt: skip
    found = declared(capfd, path)
    assert found["peft"] == ("==0.14.0", ":4") and found["numpy"][0] == "<2" and found["python"][0] == ">=3.11"
    assert found["bitsandbytes"] == (">=0.45", ":6 (extra gpu)") and found["pytest"][0] == ">8"
    assert found["rich"][0] == "<14,>=13.2" and found["click"][0] == "<8.2,>=8.1"
    path.write_text("[project\nname = 1\n")
    answer = here(capfd, path)
    assert answer.code == 2 and "pyproject.toml:1: no TOML" in answer.err


def test_locks_give_the_versions_of_the_target(tmp_path, capfd):
    path = tmp_path / "uv.lock"
    path.write_text(UV_LOCK)
    assert declared(capfd, path)["numpy"][0] == "==2.2.6"
    found = declared(capfd, path, "--fact", "system=windows")
    assert found["numpy"][0] == "==1.26.4" and found["peft"][0] == "==0.14.0" and "app" not in found
    (tmp_path / "pylock.toml").write_text(PYLOCK)
    answer = here(capfd, tmp_path / "pylock.toml", "--json", "--fact", "system=linux")
    assert answer.code == 1 and answer.ids[0] == "lock-of-other-platform"
    assert "sys_platform == 'win32'" in answer.json["findings"][0]["verdict"]
    windows = here(capfd, tmp_path / "pylock.toml", "--json", "--fact", "system=windows", "--fact", "python=3.12")
    assert "lock-of-other-platform" not in windows.ids
    (tmp_path / "pylock.toml").write_text(
        PYLOCK.split("environments")[0] + PYLOCK.split("created-by")[1].join(["x", ""])
    )
    path.write_text(UV_LOCK[:-30])
    assert here(capfd, path).code == 2


def test_wheels_alone_show_that_a_lock_is_of_another_platform(tmp_path, capfd):
    path = tmp_path / "uv.lock"
    path.write_text(
        'version = 1\n[[package]]\nname = "torch"\nversion = "2.6.0"\n'
        'wheels = [{ url = "https://f/torch-2.6.0-cp311-cp311-win_amd64.whl" }]\n'
    )
    assert here(capfd, path, "--json", "--fact", "system=linux").ids[0] == "lock-of-other-platform"
    assert "lock-of-other-platform" not in here(capfd, path, "--json", "--fact", "system=windows").ids


def test_scripts_notebooks_and_conda(tmp_path, capfd):
    script = tmp_path / "a.py"
    script.write_text(
        'x = 1\n# /// script\n# requires-python = ">=3.11"\n# dependencies = [\n#   "peft==0.14.0",\n# ]\n# ///\n'
    )
    found = declared(capfd, script)
    assert found["peft"] == ("==0.14.0", ":5") and found["python"] == (">=3.11", ":3")
    book = tmp_path / "b.ipynb"
    cells = [["%pip install -q trl==0.7.11 'transformers<4.40' -c held.txt\n", "x = 1\n"],
             ["!pip install --no-deps \\\n", "  unsloth && ls\n"], ["!python -m pip install peft\n"]]  # fmt: skip
    book.write_text(json.dumps({"cells": [{"cell_type": "code", "source": one} for one in cells]}))
    found = declared(capfd, book)
    assert found["trl"] == ("==0.7.11", ":cell 1") and found["transformers"][0] == "<4.40"
    assert set(found) == {"trl", "transformers", "unsloth", "peft"}
    conda = tmp_path / "environment.yml"
    conda.write_text(
        "name: x\ndependencies:\n  - python=3.10\n  - cudatoolkit\n  - pip\n  - pip:\n    - peft==0.14.0\n"
    )
    assert declared(capfd, conda) == {"python": ("==3.10.*", ":3"), "peft": ("==0.14.0", ":7")}
    assert "cudatoolkit" in here(capfd, conda).out


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("a.py", "x = 1\n", "has no `# /// script` block"),
        ("a.py", "# /// script\n# dependencies = []\nx = 1\n", "is not closed"),
        ("a.py", "# /// script\n# dependencies = [\n# ///\n", "no TOML"),
        ("b.ipynb", '{"cells": [', "no JSON, so no notebook"),
        ("b.ipynb", '{"cells": []}', "declares nothing"),
        ("b.ipynb", "[]", "is no notebook"),
        ("environment.yml", "a: [", "no YAML"),
        ("environment.yml", "a: 1\n", "has no list `dependencies`"),
        ("uv.lock", "version = 1\n", "locks nothing"),
        ("pyproject.toml", "", "declares nothing"),
        ("requirements.txt", "# nothing\n", "declares nothing"),
    ],
)
def test_files_that_declare_nothing_say_why(name, text, said, tmp_path, capfd):
    (tmp_path / name).write_text(text)
    answer = here(capfd, tmp_path / name)
    assert answer.code == 2 and said in answer.err, answer.err


def test_what_was_not_judged_is_told(tmp_path, capfd):
    (tmp_path / "requirements.txt").write_text("peft==0.14.0\nnobody-knows-this==1\n")
    notes = here(capfd, tmp_path / "requirements.txt", "--json").json["notes"]
    assert any(one.endswith("not judged: nobody-knows-this.") for one in notes)


def test_a_file_that_is_far_too_big(tmp_path, capfd):
    with (tmp_path / "requirements.txt").open("wb") as stream:
        stream.truncate(50 * 2**20)
    answer = here(capfd, tmp_path / "requirements.txt")
    assert answer.code == 2 and "50 MB" in answer.err and "--traceback" in answer.err
