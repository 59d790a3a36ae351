"""`python doctor.py smoke`: runs an environment, each check in a process and a folder of its own."""

from doctor_program import here
from patients import Patient


def test_checks_pass_fail_and_take_too_long(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    patient = Patient(tmp_path / "v")
    patient.install("peft", "0.14.0")
    patient.install("trl", "0.7.11", files={"trl/__init__.py": "from peft import Gone\n"})
    patient.install("datasets", "2.0", files={"datasets/__init__.py": "import time; time.sleep(60)\n"})
    assert here(capfd, "smoke", "--python", "v", "peft").code == 0
    answer = here(capfd, "smoke", "--python", "v", "--json", "--timeout", "2")
    results = {one["name"]: one["result"] for one in answer.json["checks"]}
    assert results == {"import peft": "passed", "import trl": "failed", "import datasets": "too long"}
    assert answer.code == 1 and "cannot import name 'Gone'" in answer.json["checks"][-1]["output"] + str(answer.json)
    assert answer.json["answer"]["facts"]["packages"]["trl"] == "0.7.11"
    told = here(capfd, "smoke", "--python", "v", "trl", "peft")
    assert told.code == 1 and "failed    import trl" in told.out and "cannot import name 'Gone'" in told.out


def test_nothing_to_check_and_an_unknown_package(tmp_path, capfd):
    patient = Patient(tmp_path / "v")
    assert here(capfd, "smoke", "--python", patient.folder).code == 3
    answer = here(capfd, "smoke", "--python", patient.folder, "no-such-thing")
    assert answer.code == 2 and "has no no-such-thing" in answer.err


def test_tiny_checks_of_torch_transformers_and_tokenizers_are_there(tmp_path, capfd):
    """Fakes stand for the libraries: what is asked of them is seen by what they write."""
    patient = Patient(tmp_path / "v")
    patient.install("torch", "2.6.0", files={"torch/__init__.py": (
        "class cuda:\n    is_available = staticmethod(lambda: False)\n"
        "class Sum:\n    item = staticmethod(lambda: 512)\n"
        "class ones:\n    def __init__(self, *a, **k): pass\n    def __matmul__(self, o): return self\n"
        "    def sum(self): return Sum\n"
    )})  # fmt: skip
    answer = here(capfd, "smoke", "--python", patient.folder, "--json")
    results = {one["name"]: one["result"] for one in answer.json["checks"]}
    assert results == {"import torch": "passed", "torch: product of matrices on the CPU": "passed",
                       "torch: product of matrices on each GPU": "not here"}  # fmt: skip
    assert answer.code == 0 and answer.json["answer"] is None
