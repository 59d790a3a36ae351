"""`python doctor.py plan "WHAT"`: what is understood, what is chosen, what is told of the hardware."""

import re
import tomllib

import pytest
from doctor_program import here
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from doctor.planning.known_sets import known_sets
from doctor.planning.needs import largest, serving, training
from doctor.planning.wish import read_wish
from doctor.sources.script_file import find_block


def plan(capfd, *words):
    answer = here(capfd, "plan", *words, "--json")
    return answer.code, answer.json


@pytest.mark.parametrize(
    "sentence, chosen",
    [
        ("unsloth + trl on T4, Colab", "unsloth-cuda12"),
        ("fine-tune 7B with QLoRA on 16 GB", "unsloth"),
        ("fine-tune a model on an RTX 4090", "unsloth"),
        ("fine-tune 8B on Windows with an RTX 3090", "unsloth-windows"),
        ("fine-tune 70B with QLoRA on 2x A100 80GB", "trl-qlora"),
        ("trl on two A100", "trl-qlora"),
        ("axolotl on an H100", "axolotl"),
        ("llamafactory on L4", "llamafactory"),
        ("deepspeed full fine-tuning on 8x H100", "deepspeed"),
        ("GRPO on an H100", "unsloth-vllm"),
        ("serve 8B on an L4", "vllm"),
        ("vllm on V100", "vllm-volta"),
        ("sglang on A100", "sglang"),
        ("serve a model on my MacBook M3", "mlx"),
        ("fine-tune on a Mac", "trl-mac"),
        ("fine-tune 0.5B with LoRA on CPU", "trl-cpu"),
        ("serve on a CPU", "llama-cpp-cpu"),
        ("generate synthetic data with curator", "curator"),
        ("trl on V100", "trl-volta"),
        ("vllm + unsloth on A100", "unsloth-vllm"),
        ("run Mistral 7B locally on RTX 3090", "vllm"),
    ],
)
def test_the_set_for_a_wish(sentence, chosen, capfd):
    code, told = plan(capfd, sentence)
    assert code == 0 and told["set"]["id"] == chosen, (told["reasons"], told["understood"])
    assert told["set"]["confirmed"] and told["set"]["smoke"].startswith("import ")


@pytest.mark.parametrize(
    "sentence, reason",
    [
        ("vllm on a Mac", "serve with mlx-lm"),
        ("unsloth on CPU", "fine-tune with trl and peft"),
        ("QLoRA on a MacBook", "bitsandbytes"),
        ("vllm on windows with RTX 4090", "WSL"),
        ("flash-attn on T4, fine-tune", "sdpa"),
        ("sglang on T4", "capability 8.0"),
        ("serve 70B on an L4", "do not fit into 24 GB"),
        ("full fine-tune 7B on RTX 4090", "QLoRA in 4 bit"),
        ("fine-tune on an RX 7900 with ROCm", "ROCm"),
        ("curator and trl", "it has no trl"),
        ("fine-tune on P100", "older than"),
    ],
)
def test_what_fits_nowhere_says_what_to_change(sentence, reason, capfd):
    code, told = plan(capfd, sentence)
    assert code == 1 and told["set"] is None
    assert reason in " ".join([*told["reasons"], *(one["text"] for one in told["footguns"])]), told["reasons"]
    assert here(capfd, "plan", sentence).out.count("Nothing fits:") == 1


@pytest.mark.parametrize(
    "sentence, told",
    [
        ("fine-tune on T4", ["has no bf16", "flash-attn 2 needs Ampere", "fp8 needs Ada"]),
        ("serve on V100", ["no code for V100", "has no bf16"]),
        ("serve on A100", ["fp8 needs Ada"]),
        ("serve on H100", []),
        ("fine-tune on RTX 5090", ["CUDA 12.8", "flash-attn 3 is for Hopper"]),
        ("unsloth on Windows with RTX 4070", ["triton-windows"]),
        ("unsloth and trl on Colab", ["restart", "import unsloth before"]),
        ("unsloth on Kaggle", ["CUDA_VISIBLE_DEVICES=0"]),
    ],
)
def test_footguns_of_the_hardware(sentence, told, capfd):
    _, answer = plan(capfd, sentence)
    texts = [one["text"] for one in answer["footguns"]]
    assert all(any(part in text for text in texts) for part in told), texts
    assert told or not texts


def test_an_old_driver_gets_an_older_cuda(capfd):
    assert plan(capfd, "unsloth on L4", "--driver", "535.104")[1]["set"]["id"] == "unsloth-cuda12"
    assert plan(capfd, "unsloth on L4", "--driver", "580.95")[1]["set"]["id"] == "unsloth"
    code, told = plan(capfd, "unsloth on L4", "--driver", "470.1")
    assert code == 1 and "it needs driver 525.60" in " ".join(told["reasons"])


def test_what_is_understood():
    wish = read_wish("serve Llama 8B with vLLM on 2x RTX 4090, locally, and some jabberwocky")
    assert (wish.goal, wish.libraries, wish.place, wish.billions) == ("serve", ("vllm",), "local", 8.0)
    assert (wish.hardware.name, wish.hardware.count, wish.hardware.memory) == ("RTX 4090", 2, 24)
    assert wish.hardware.capability == (8, 9) and "jabberwocky" in wish.ignored
    assert read_wish("qlora 500m on kaggle").billions == 0.5 and read_wish("qlora on kaggle").hardware.name == "T4"


def test_the_arithmetic_of_memory():
    """The numbers that the module's docstring writes out."""
    assert serving(8, "bf16", tokens=1000).total == pytest.approx(16 + 2 * 32 * 8 * 128 * 2 * 1000 / 1e9 + 1)
    assert dict(training(7, "full").parts)["weights, gradients and AdamW"] == 112
    assert training(7, "qlora").total < training(7, "lora").total < training(7, "full").total
    assert largest(15, "qlora") == pytest.approx(8.03) and largest(1, "full") == 0


def test_each_set_is_well_formed():
    assert len({one.id for one in known_sets()}) == len(known_sets()) > 10
    for one in known_sets():
        assert one.goals and one.kinds and re.fullmatch(r"\d{4}-\d\d-\d\d", one.confirmed.date), one.id
        assert SpecifierSet(one.python).contains(one.python_version)
        for pin in one.pins:
            Version(Requirement(pin).specifier.__str__().removeprefix("=="))
        assert ("nvidia" in one.kinds and "torch" in one.versions) == (one.driver is not None), one.id


def test_the_header_is_read_by_our_own_reader_and_the_script_compiles(tmp_path, capfd):
    for one in known_sets():
        goal, kind = one.goals[0], one.kinds[0]
        assert goal and kind
    target = tmp_path / "tune.py"
    answer = here(capfd, "plan", "fine-tune on RTX 4090, windows", "--write", target)
    assert answer.code == 0 and "uv run" in answer.err
    block = find_block(target.read_text())
    tables = tomllib.loads(block.toml)
    assert "unsloth==2026.10.9" in tables["dependencies"] and tables["requires-python"] == ">=3.12,<3.14"
    assert tables["tool"]["uv"]["sources"]["torch"] == {"index": "pytorch"}
    compile(target.read_text(), str(target), "exec")
    again = here(capfd, "plan", "fine-tune on RTX 4090", "--write", target)
    assert again.code == 2 and "--force" in again.err
    assert here(capfd, "plan", "serve on L4", "--write", tmp_path / "x.txt").code == 2


def test_colab_gets_cells_that_hold_the_images_torch(capfd):
    _, told = plan(capfd, "unsloth + trl on T4, Colab")
    cells = told["set"]["colab"]
    assert cells[1].startswith("%pip install") and "torch==" not in cells[1] and "-c /tmp/held.txt" in cells[1]
    assert "Restart session" in cells[2] and "import unsloth" in cells[3]
    assert "Cell 2:" in here(capfd, "plan", "unsloth + trl on T4, Colab").out


def test_a_set_has_the_libraries_that_were_asked_for(capfd):
    """torch too: a set without it is none for who asks for torch."""
    told = here(capfd, "plan", "torch on V100", "--json").json
    assert "torch==2.7.1" in str(told["set"])


def test_memory_in_words_and_a_card_by_its_number_are_understood(capfd):
    assert "24 GB" in here(capfd, "plan", "fine-tune 7B on 24 gigabytes").out.splitlines()[0]
    assert "RTX 4090" in here(capfd, "plan", "fine-tune 7B on a 4090").out.splitlines()[0].upper()
