"""What resolvers say of conflicts."""

from failure_texts import FOLDER

from doctor.failure.read import read_failure
from doctor.failure.resolution import Wish, read_resolution


def told(name):
    return read_resolution(read_failure((FOLDER / f"{name}.txt").read_bytes()).text)


def test_pip_names_who_wants_what():
    assert told("pip_conflict").wishes == (
        Wish("openai", "1.54.5", "httpx", "<1,>=0.23.0"),
        Wish("", "", "httpx", "==0.10"),
    )


def test_uv_names_who_wants_what_in_both_of_its_forms():
    assert Wish("llamafactory", ">=0.9.5", "trl", ">=0.18.0,<=0.24.0") in told("uv_conflict").wishes
    assert Wish("", "", "trl", ">=1.0") in told("uv_conflict").wishes
    assert told("uvold").wishes[0] == Wish("vllm", "0.33.0", "transformers", ">=5.16.1,<5.21.0")


def test_poetry_and_conda():
    assert Wish("bar", "1.0", "torch", "<2.0") in told("poetry").wishes
    assert Wish("", "", "torch", ">=2.1,<3") in told("poetry").wishes
    assert told("mamba").python == (("pytorch", ">=3.6,<3.7"),)


def test_what_is_installed_and_does_not_fit():
    assert told("depres").wishes == (
        Wish("torchaudio", "2.5.1+cu124", "torch", "==2.5.1", "2.6.0"),
        Wish("fastai", "2.7.18", "torch", "<2.6,>=1.10", "2.6.0"),
    )


def test_what_an_index_has():
    resolution = told("pip_python")
    ((name, versions),) = resolution.offered
    assert name == "numpy"
    assert versions[0] == "1.3.0" and versions[-1] == "2.4.6"
    assert resolution.missing == ("numpy",)
    assert resolution.python[0] == ("1.21.2", ">=3.7,<3.11")
    assert told("uv_none").missing == ("nosuchpkgxyz123",)


def test_other_texts_say_nothing():
    resolution = told("vllm_prefix")
    assert resolution.wishes == () and resolution.offered == () and resolution.missing == ()
