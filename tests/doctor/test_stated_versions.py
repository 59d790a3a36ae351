"""Versions that reports, lists and sentences tell."""

from pathlib import Path

import pytest

from doctor.failure.names import distribution
from doctor.failure.read import read_failure

FOLDER = Path(__file__).parent / "reports"
TOLD = {
    "piplist": {
        "absl-py": "==2.1.0",
        "my-odd-pkg": "==0.1",
        "pillow": "==10.4.0",
        "pip": "==24.0",
        "torch": "==2.5.1+cu124",
    },
    "freeze": {
        "accelerate": "==1.0.1",
        "torch": "==2.4.0",
        "trl": "",
        "zipp": "==3.20.0",
        "flash-attn": "==2.7.0.post2+cu12torch2.4cxx11abiFALSE",
    },
    "conda": {"numpy": "==1.21.2", "torch": "==1.10.0", "transformers": "==4.30.2"},
    "collect_env": {"torch": "==2.6.0+cu124", "numpy": "==1.26.4", "vllm": "==0.8.5", "triton": "==3.2.0"},
    "hfenv": {
        "transformers": "==4.46.2",
        "torch": "==2.5.1",
        "jax": "<0",
        "vllm": "==0.6.6.post1",
        "huggingface-hub": "==0.26.2",
    },
    "accel": {"accelerate": "==0.33.0", "numpy": "==1.26.4", "torch": "==2.3.1+cu121"},
    "sglenv": {"torch": "==2.4.0+cu121", "sglang": "==0.4.0.post2", "hf-transfer": "==0.1.9"},
    "unsloth": {
        "unsloth": "==2025.2.15",
        "transformers": "==4.48.3",
        "torch": "==2.5.1+cu124",
        "xformers": "==0.0.29.post3",
    },
    "md": {
        "peft": "==0.14.0",
        "trl": ">=0.8.0",
        "datasets": "==2.14.4",
        "torch": "==2.1.*",
        "bitsandbytes": "==0.43.1",
    },
    "sent": {
        "transformers": "==4.40.2",
        "peft": "==0.10.0",
        "torch": "==2.3.1",
        "numpy": "==1.26.4",
        "accelerate": "==0.30.0",
    },
    "pipinst": {"torch": "==2.3.0", "numpy": "==1.26.4", "transformers": "==4.44.2", "typing-extensions": "==4.12.2"},
    "uvinst": {"huggingface-hub": "==0.36.0"},
    "smi": {},
}


@pytest.mark.parametrize("name", TOLD)
def test_reports_tell_versions(name):
    failure = read_failure((FOLDER / f"{name}.txt").read_bytes())
    first: dict[str, str] = {}
    for one in failure.stated:
        first.setdefault(one.name, one.specifier)
    assert {key: first.get(key) for key in TOLD[name]} == TOLD[name]
    assert failure.raised == ()
    assert not first.keys() & {"python", "cuda", "cuda-runtime", "loss", "step", "time", "gcc", "cmake", "os"}


def test_a_sentence_about_another_version_tells_nothing():
    said = "You need trl 0.8. It requires torch 2.3 and worked with numpy 1.26. "
    said += "In vllm 0.5.0 it was ok, until peft 0.9.0."
    assert read_failure(said).stated == ()


def test_what_a_program_found_comes_before_what_a_list_says():
    text = "tokenizers 0.20.3\n\nImportError: tokenizers>=0.20,<0.21 is required, but found tokenizers==0.13.3.\n"
    assert [one.specifier for one in read_failure(text).stated] == ["==0.13.3", "==0.20.3"]


def test_versions_end_a_message():
    said = "ValueError: x\npeft: older than 0.14\nnumpy==2.0.2\nPlatform: Linux, Python 3.10, conda\n"
    failure = read_failure(said)
    assert failure.first.message == "x"
    assert {one.name: one.specifier for one in failure.stated} == {"peft": "<0.14", "numpy": "==2.0.2"}
    assert (failure.platform.sys_platform, failure.platform.python, failure.platform.place) == (
        "linux",
        "3.10",
        "conda",
    )


def test_an_error_is_no_statement():
    assert read_failure("Unsloth: Could not build the patched trainer\nwandb: Run data is saved locally\n").stated == ()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("`transformers` version", "transformers"),
        ("PyTorch version (GPU?)", "torch"),
        ("Huggingface_hub version", "huggingface-hub"),
        ("LLaMA-Factory", "llamafactory"),
        ("Version of trl", "trl"),
        ("flash_attn[x]", "flash-attn"),
        ("CUDA", None),
        ("Python version", None),
        ("12", None),
        ("", None),
    ],
)
def test_names_as_people_write_them(text, name):
    assert distribution(text) == name
