"""A command that dies of a broken environment names the doctor in its last line; other errors do not."""

import pytest

from constants.environment_faults import is_environment_fault

_SHARED = "libnuma.so.1: cannot open shared object file: No such file or directory"


@pytest.fixture
def library(tmp_path):
    """A folder of packages with a library that can't be imported."""
    folder = tmp_path / "site-packages" / "brokenlib"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("import brokenlib.part\n")
    (folder / "part.py").write_text("import gone_dependency\n")
    (folder / "linked.py").write_text("")
    return folder


def raised(code, library, monkeypatch):
    monkeypatch.syspath_prepend(str(library.parent))
    try:
        exec(compile(code, "/home/me/mine.py", "exec"), {})
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "code, is_fault",
    [
        ("import brokenlib", True),
        ("import mine_that_is_missing", False),
        ("from json import nothing_of_it", False),
        (f"raise ImportError({_SHARED!r})", True),
        (f"raise OSError({_SHARED!r})", True),
        ("raise RuntimeError('CUDA error: no kernel image is available for execution on the device')", True),
        ("raise AssertionError('Torch not compiled with CUDA enabled')", True),
        ("raise RuntimeError('The NVIDIA driver on your system is too old (found version 11040).')", True),
        ("raise RuntimeError('CUDA out of memory.')", False),
        ("raise ValueError('mat1 and mat2 shapes cannot be multiplied')", False),
        ("raise OSError(2, 'No such file or directory')", False),
        ("try:\n    import brokenlib\nexcept ImportError as e:\n    raise RuntimeError('could not load') from e", True),
    ],
)
def test_what_is_of_the_environment(code, is_fault, library, monkeypatch):
    assert is_environment_fault(raised(code, library, monkeypatch)) is is_fault


def test_training_that_dies_of_a_library_names_the_doctor_last(project, library):
    sample = project.path / "train" / "faulty_trainer.py"
    text = sample.read_text()
    sample.write_text(text.replace('Path("/nowhere/data.bin").read_bytes()', "import brokenlib"))
    done = project.run("Faulty", "fault=missing_file", PYTHONPATH=str(library.parent))
    assert done.returncode == 4, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Why, and what mends it: ") and "doctor.py run -- " in last
    assert last.endswith("train.py Faulty fault=missing_file")
    under = project.run("Faulty", "fault=missing_file", PYTHONPATH=str(library.parent), MENAGERIE_DOCTOR="1")
    assert "what mends it" not in under.stderr
    sample.write_text(text)
    assert "what mends it" not in project.run("Faulty", "fault=missing_file").stderr


def test_a_script_whose_own_imports_break_shows_the_traceback_and_names_the_doctor(project, library):
    (project.path / "constants" / "missing_packages.py").write_text(
        (project.path / "constants" / "missing_packages.py").read_text().replace(
            "importlib.import_module(module).main()", "importlib.import_module('brokenlib').main()")
    )  # fmt: skip
    done = project.run("hebrew-4", script="recommend.py", PYTHONPATH=str(library.parent))
    assert done.returncode == 1 and "ModuleNotFoundError: No module named 'gone_dependency'" in done.stderr
    assert "run -- " in done.stderr.splitlines()[-1] and "recommend.py hebrew-4" in done.stderr.splitlines()[-1]
