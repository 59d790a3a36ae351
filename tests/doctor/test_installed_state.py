"""What is found in real virtual environments that are broken by hand, with distributions written as pip does."""

import json
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.version import Version
from patients import Patient, install_into

from doctor.case import Case
from doctor.diagnosis.installed_state import find_installed_state
from doctor.environment.facts import Environment
from doctor.environment.read import read_environment
from doctor.failure.facts import Failure, Raised
from doctor.finding import BRANCHES, Finding
from doctor.knowledge.metadata import Release
from doctor.remedy.commands import commands

OWNERS = {"datasets": ("datasets",), "peft": ("peft",), "cv2": ("opencv-python",)}
KNOWN = SimpleNamespace(
    metadata=SimpleNamespace(projects=frozenset(), owners=lambda name: OWNERS.get(name, ()), releases=lambda name: ())
)


@pytest.fixture
def venv(tmp_path) -> Patient:
    """An environment of three packages that need each other."""
    made = Patient(tmp_path / "venv")
    made.install("transformers", "4.45.2", requires=("tokenizers>=0.20,<0.21", "numpy", "datasets; extra == 'all'"))
    made.install("tokenizers", "0.20.3")
    made.install("numpy", "1.26.4")
    return made


def found(venv: Patient, folder: Path | None = None, failure: Failure | None = None, **variables: str) -> list[Finding]:
    variables = {"HOME": str(venv.folder.parent), **variables}
    here = read_environment(venv.python, variables=variables, machine=False)
    case = Case(here, failure, str(folder) if folder else None)
    findings = [one for one in find_installed_state(case, KNOWN) if isinstance(one, Finding)]
    for one in findings:
        assert one.branch.split("/")[1] in BRANCHES[one.branch.split("/")[0]]
        assert one.evidence and one.why and one.changes and one.check and 0 < one.confidence <= 1
    return findings


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, [one.verdict for one in findings]
    return findings[0]


def raised(kind: str, message: str) -> Failure:
    return Failure("python", (Raised(kind, message),), text=f"{kind}: {message}")


def test_a_healthy_environment_gives_nothing(venv, tmp_path):
    work = tmp_path / "work"
    for name in ("train.py", "test.py", "config.py", "data/x.csv", "numpy.txt", "tests/__init__.py", "wandb/run/log"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text("")
    venv.install("wandb", "0.18")
    venv.install("careless", "1.0", files={"careless.py": "", "tests/__init__.py": "", "config.py": ""})
    venv.install("careless-too", "1.0", files={"careless_too.py": "", "tests/__init__.py": "#", "tests/a.py": "#"})
    venv.install("google-a", "1.0", files={"google/a/__init__.py": ""})
    venv.install("google-b", "1.0", files={"google/b/__init__.py": ""})
    venv.install("nvidia-x", "1.0", files={"nvidia/__init__.py": "", "nvidia/x/__init__.py": ""})
    venv.install("nvidia-y", "1.0", files={"nvidia/__init__.py": "", "nvidia/y/__init__.py": ""})
    venv.install("forgetful", "2.0", files={"forgetful/__init__.py": "__version__ = '1.9'\n"})
    venv.install("build", "1.0", requires=("tomli; python_version < '3.0'", "colorama; os_name == 'nt'"))
    assert found(venv, work) == []


class TestHiddenModules:
    def test_a_file_hides_an_installed_library(self, venv, tmp_path):
        """E1 of the catalogue of conflicts: the import fails with the file, and passes when it is renamed."""
        venv.install("datasets", "3.0.0", files={"datasets/__init__.py": "def load_dataset(): ...\n"})
        work = tmp_path / "work"
        work.mkdir()
        (work / "datasets.py").write_text("x = 1\n")
        code = "from datasets import load_dataset"
        assert "cannot import name 'load_dataset'" in venv.run(code, work).stderr
        finding = only(found(venv, work))
        assert (finding.id, finding.branch, finding.level) == (
            "hides-installed-module", "import/shadowed", "error")  # fmt: skip
        assert finding.culprits == ("datasets",) and str(work / "datasets.py") in finding.verdict
        command = finding.changes[0].commands[0]
        assert command == f"mv {work / 'datasets.py'} {work / 'my_datasets.py'}"
        (work / "datasets.py").rename(work / "my_datasets.py")
        assert venv.run(code, work).returncode == 0 and found(venv, work) == []

    def test_a_file_hides_the_standard_library(self, venv, tmp_path):
        (tmp_path / "random.py").write_text("")
        (tmp_path / "mailbox.py").write_text("")
        (tmp_path / "os.py").write_text("")  # loaded before the script's folder is looked at
        (tmp_path / "enum.py").write_text("")
        (tmp_path / "json").mkdir()  # a mere folder hides nothing
        levels = {Path(one.evidence[0].split()[0]).name: one.level for one in found(venv, tmp_path)}
        assert levels == {"random.py": "error", "mailbox.py": "warning", "enum.py": "error"}
        (venv.site / "hook.pth").write_text("import enum\n")  # loads it before
        levels = {Path(one.evidence[0].split()[0]).name: one.level for one in found(venv, tmp_path)}
        assert levels == {"random.py": "error", "mailbox.py": "warning", "enum.py": "warning"}

    def test_pythonpath_hides_too(self, venv, tmp_path):
        leak = tmp_path / "leak"
        (leak / "tokenizers").mkdir(parents=True)
        (leak / "tokenizers" / "__init__.py").write_text("")
        finding = only(found(venv, PYTHONPATH=str(leak)))
        assert "PYTHONPATH" in finding.evidence[0] and finding.level == "error"

    def test_sources_that_are_installed_from_there_hide_nothing(self, venv, tmp_path):
        source = tmp_path / "project"
        (source / "mine").mkdir(parents=True)
        (source / "mine" / "__init__.py").write_text("")
        told = {"url": source.as_uri(), "dir_info": {"editable": True}}
        venv.install("mine", "1.0", extra={"direct_url.json": json.dumps(told), "top_level.txt": "mine\n"}, files={})
        assert found(venv, source) == []

    def test_sources_hide_a_build_of_them(self, venv, tmp_path):
        source = tmp_path / "project"
        (source / "vllm").mkdir(parents=True)
        (source / "vllm" / "__init__.py").write_text("")
        (source / "pyproject.toml").write_text('[project]\nname = "vllm"\n')
        venv.install("vllm", "0.9.0", files={"vllm/__init__.py": "", "vllm/_C.abi3.so": "x"})
        finding = only(found(venv, source))
        assert (finding.id, finding.level, finding.culprits) == ("sources-hide-build", "warning", ("vllm",))
        (source / "vllm" / "_C.abi3.so").write_text("x")
        assert only(found(venv, source)).level == "note"

    def test_a_mere_folder_stands_for_a_library_that_is_not_there(self, venv, tmp_path):
        (tmp_path / "datasets").mkdir()
        finding = only(found(venv, tmp_path))
        assert finding.id == "folder-stands-for-library" and finding.level == "warning"
        failure = raised("AttributeError", "module 'datasets' has no attribute '__version__'")
        assert only(found(venv, tmp_path, failure)).confidence > 0.8
        other = raised("ValueError", "shapes (2, 3) and (4, 5) do not match")
        assert found(venv, tmp_path, other) == []
        venv.install("datasets", "3.0")
        assert found(venv, tmp_path) == []


class TestCopies:
    def test_a_copy_on_pythonpath_is_imported(self, venv, tmp_path):
        """E2 of the catalogue of conflicts."""
        leak = tmp_path / "leak"
        install_into(leak, "tokenizers", "0.13.3")
        code = "import tokenizers; print(tokenizers.__version__)"
        assert venv.run(code, PYTHONPATH=str(leak)).stdout == "0.13.3\n"
        finding = only(found(venv, PYTHONPATH=str(leak)))
        assert (finding.id, finding.branch, finding.level) == ("leak-of-pythonpath", "import/shadowed", "error")
        assert finding.changes[0].environment == (("PYTHONPATH", ""),)
        assert "transformers 4.45.2 needs tokenizers<0.21,>=0.20, and gets 0.13.3" in finding.evidence
        assert found(venv) == []

    def test_a_copy_in_the_user_site_is_imported_where_the_base_is_seen(self, tmp_path):
        """E3 of the catalogue of conflicts: a plain environment doesn't see the user's folder, another one does."""
        short = f"python{sys.version_info.major}.{sys.version_info.minor}"
        user = tmp_path / "user" / "lib" / short / "site-packages"
        install_into(user, "peft", "0.5.0")
        told = {"PYTHONUSERBASE": str(tmp_path / "user")}
        code = "import peft; print(peft.__version__)"
        plain = Patient(tmp_path / "plain")
        plain.install("trainer", "1.0", requires=("peft>=0.13",))
        assert (
            only(found(plain, **told)).id == "need-missing"
            and "No module named 'peft'" in plain.run(code, **told).stderr
        )
        sees = Patient(tmp_path / "sees", None, "--system-site-packages")
        sees.install("trainer", "1.0", requires=("peft>=0.13",))
        assert sees.run(code, **told).stdout == "0.5.0\n"
        ours = [one for one in found(sees, **told) if "peft" in one.culprits]  # its base has packages of its own
        finding = only(ours)
        assert (finding.id, finding.branch, finding.level) == ("leak-of-user-site", "import/shadowed", "error")
        assert finding.changes[0].requirements == ("peft>=0.13",)
        assert finding.changes[1].environment == (("PYTHONNOUSERSITE", "1"),)
        assert "trainer 1.0 needs peft>=0.13, and gets 0.5.0" in finding.evidence
        sees.install("peft", "0.13.2")
        assert sees.run(code, **told).stdout == "0.13.2\n"  # its own folder comes before the user's
        assert not [one for one in found(sees, **told) if "peft" in one.culprits]

    def test_two_dist_infos_of_one_project(self, venv):
        """E4 of the catalogue of conflicts."""
        venv.install("huggingface-hub", "0.26.0")
        stale = venv.install("huggingface-hub", "0.17.1", files={}, extra={"top_level.txt": "huggingface_hub\n"})
        finding = only(found(venv))
        assert (finding.id, finding.branch, finding.level) == (
            "two-dist-infos", "import/stale_or_partial", "warning")  # fmt: skip
        assert finding.changes[0].commands == (f"rm -r {stale}",)
        here = read_environment(venv.python, variables={}, machine=False)
        assert here.find("huggingface-hub").version == "0.26.0"  # what the files say, not what was written last

    def test_two_kinds_of_metadata_of_one_version_do_no_harm(self, venv):
        egg = venv.site / "numpy.egg-info"
        egg.mkdir()
        (egg / "PKG-INFO").write_text("Metadata-Version: 1.0\nName: numpy\nVersion: 1.26.4\n")
        assert found(venv) == []

    def test_a_fork_and_its_original_write_one_module(self, venv):
        fork = {
            "transformers/__init__.py": "__version__ = '4.26.1'\n",
            "transformers/utils.py": "check = 1\n",
            "transformers/own.py": "",
        }
        venv.install("transformers", "4.45.2", files={"transformers/__init__.py": "", "transformers/utils.py": "",
                     "transformers/new.py": ""})  # fmt: skip
        venv.install("adapter-transformers", "3.2.1", files=fork)
        finding = only([one for one in found(venv) if one.id != "need-unmet"])
        assert (finding.id, finding.branch, finding.level) == ("two-write-one-module", "import/shadowed", "warning")
        assert finding.culprits == ("adapter-transformers", "transformers")
        assert finding.changes[0].remove == ("adapter-transformers", "transformers")
        assert finding.changes[0].requirements == ("transformers==4.45.2",)

    @pytest.mark.parametrize("version, level", [("4.10.0.84", "note"), ("4.8.1.78", "warning")])
    def test_two_builds_of_opencv_do_no_harm_if_they_are_alike(self, venv, version, level):
        venv.install("opencv-python", "4.10.0.84", files={"cv2/__init__.py": "", "cv2/cv2.abi3.so": "gui"})
        venv.install("opencv-python-headless", version, files={"cv2/__init__.py": "", "cv2/cv2.abi3.so": "none"})
        assert only(found(venv)).level == level

    def test_pip_over_conda(self, venv):
        (venv.folder / "conda-meta").mkdir()
        (venv.folder / "conda-meta" / "numpy-1.24.3-py311h0_0.json").write_text("{}")
        (venv.folder / "conda-meta" / "tokenizers-0.20.3-py311h0_0.json").write_text("{}")
        finding = only(found(venv))
        assert finding.id == "conda-and-pip" and finding.culprits == ("numpy",) and "1.24.3" in finding.verdict


class TestLeftovers:
    def test_folders_of_an_interrupted_change(self, venv):
        for name in ("~umpy", "-ransformers", "~ip-21.0.dist-info"):
            (venv.site / name).mkdir()
        finding = only(found(venv))
        assert finding.id == "interrupted-change" and set(finding.culprits) == {"numpy", "transformers"}
        assert finding.changes[0].requirements == ("numpy==1.26.4", "transformers==4.45.2")
        lines = commands(finding.changes[0], Environment("v")).pip
        assert lines[0].startswith("rm -r ") and lines[-1].endswith("numpy==1.26.4 transformers==4.45.2")
        failure = Failure("log", lines=("WARNING: Ignoring invalid distribution -umpy (/v/site-packages)",), text="x")
        finding = only(found(venv, failure=failure))
        assert finding.confidence >= 0.85 and finding.evidence[0] == failure.lines[0]

    def test_files_that_are_not_there(self, venv):
        (venv.site / "numpy" / "__init__.py").unlink()
        finding = only(found(venv))
        assert (finding.id, finding.level, finding.provable) == ("files-missing", "error", "import numpy")
        venv.install("numpy", "1.26.4", files={"numpy/__init__.py": "", "numpy/a.py": "", "numpy/tests/b.py": "",
                     "numpy/data.txt": "", "numpy/__pycache__/a.cpython-311.pyc": ""})  # fmt: skip
        for name in ("tests/b.py", "data.txt", "__pycache__/a.cpython-311.pyc"):
            (venv.site / "numpy" / name).unlink()
        assert found(venv) == []
        (venv.site / "numpy" / "a.py").unlink()
        assert only(found(venv)).level == "warning"

    def test_a_dist_info_without_metadata(self, venv):
        (venv.site / "tokenizers-0.20.3.dist-info" / "METADATA").unlink()
        assert only(found(venv)).id == "dist-info-without-metadata"

    def test_a_dist_info_without_record(self, venv):
        (venv.site / "tokenizers-0.20.3.dist-info" / "RECORD").unlink()
        assert (only(found(venv)).id, only(found(venv)).level) == ("dist-info-without-record", "note")

    def test_files_of_another_release(self, venv):
        (venv.site / "numpy" / "__init__.py").write_text("__version__ = '2.0.2'\n")
        finding = only(found(venv))
        assert finding.id == "files-of-another-release" and "2.0.2" in finding.verdict

    def test_a_folder_that_an_uninstall_left(self, venv):
        (venv.site / "peft" / "__pycache__").mkdir(parents=True)
        (venv.site / "peft" / "__pycache__" / "a.cpython-311.pyc").write_text("")
        assert only(found(venv)).level == "note"
        failure = raised("ImportError", "cannot import name 'LoraConfig' from 'peft' (unknown location)")
        finding = only(found(venv, failure=failure))
        assert finding.level == "warning" and finding.confidence > 0.8


class TestDeclaredNeeds:
    def test_a_requirement_that_is_not_met(self, venv):
        venv.install("peft", "0.14", requires=("numpy>=2", "numpy<3", "accelerate[x]>=0.21 ; python_version >= '3'"))
        findings = {one.id: one for one in found(venv)}
        assert set(findings) == {"need-unmet", "need-missing"}
        assert findings["need-unmet"].level == "warning" and findings["need-unmet"].culprits[:2] == ("numpy", "peft")
        assert findings["need-unmet"].changes[0].requirements == ("numpy>=2,<3",)
        assert findings["need-missing"].changes[0].requirements == ("accelerate>=0.21",)

    def test_a_requirement_that_the_program_checks_itself_is_an_error(self, venv):
        (venv.site / "transformers" / "dependency_versions_check.py").write_text(
            'pkgs_to_check_at_runtime = [\n    "tqdm",\n    "tokenizers",\n]\n'
        )
        venv.install("safetensors", "0.4")
        for name in venv.site.glob("tokenizers-*"):
            (name / "METADATA").write_text("Metadata-Version: 2.1\nName: tokenizers\nVersion: 0.15.2\n")
        finding = only(found(venv))
        assert finding.level == "error" and finding.provable == "import transformers"

    def test_what_cannot_be_met_together_is_not_proposed(self, venv, monkeypatch):
        venv.install("peft", "0.14", requires=("numpy>=2",))
        venv.install("old", "1", requires=("numpy<2",))
        assert [one.kind for one in only(found(venv)).changes] == ["option"]
        day = date(2025, 1, 1)
        asked = {"0.12": "numpy>=1", "0.13": "numpy>=1.17", "0.14": "numpy>=2", "0.15": "numpy>=2"}
        peft = [Release(Version(one), day, (asks,), "", False, ("py3-none-any",), True) for one, asks in asked.items()]
        releases = {"peft": peft}
        monkeypatch.setattr(KNOWN.metadata, "releases", lambda name: releases.get(name, ()))
        finding = only(found(venv))
        assert [one.requirements for one in finding.changes] == [("peft==0.13",)]

    def test_another_python_is_asked_for(self, venv):
        venv.install("young", "1", requires_python=">=3.99")
        venv.install("old", "1", requires_python=">=3.7,<3.9")
        levels = {one.culprits[0]: one.level for one in found(venv)}
        assert levels == {"young": "warning", "old": "note"}

    @pytest.mark.parametrize("tag, file, level", [
        ("cp27-cp27mu-manylinux_2_5_x86_64", "c.cpython-27-x86_64-linux-gnu.so", "error"),
        ("cp311-abi3-win_amd64", "c.pyd", "error"),
        ("cp311-cp311-musllinux_1_1_x86_64", "c.so", "error"),
        ("cp311-cp311-manylinux_2_99_x86_64", "c.so", "warning"),
        ("py3-none-linux_x86_64", "c.so", None), ("py2.py3-none-any", "c.py", None), ("nonsense", "c.py", None),
    ])  # fmt: skip
    def test_a_wheel_of_another_platform(self, venv, tag, file, level):
        short = f"cp{sys.version_info.major}{sys.version_info.minor}"
        venv.install("odd", "1", tags=(tag.replace("cp311", short),), files={"odd/__init__.py": "", f"odd/{file}": ""})
        assert [one.level for one in found(venv)] == ([level] if level else [])


def test_a_failure_that_has_nothing_to_do_with_it_lowers_the_confidence(venv):
    (venv.site / "~umpy").mkdir()
    far = only(found(venv, failure=raised("KeyError", "'loss'"))).confidence
    near = only(found(venv, failure=raised("ImportError", "numpy.core.multiarray failed to import"))).confidence
    assert far < 0.35 < 0.8 < near
