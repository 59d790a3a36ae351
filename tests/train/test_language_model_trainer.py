"""Fine-tuning through the command line: what is learned, what a run leaves, resuming, and data that can't be used."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers_twins import assert_gradients, fill, twins, with_peft

pytest.importorskip("transformers")
pytest.importorskip("gguf")

from llm.adapter_files import load_adapter
from llm.base_model import load
from llm.model_export import export_model
from llm.tiny_model import byte_tokenizer
from model.causal_lm import PackedRows
from model.lora import AdapterRows, LoraBank, LoraSettings

# Kills the process after a step; notes the norm of each step's gradient.
CALLBACKS = """
import os, signal, torch
from train.callbacks import Callback

class Watch(Callback):
    def on_train_begin(self, trainer):
        trainer.keep_gradient_norms()

    def on_step_end(self, trainer, steps):
        with open("norms.txt", "a") as stream:
            stream.write(f"{trainer.last_gradient_norm.item()!r}\\n")
        if trainer.record.progress.step == int(os.environ.get("KILL_AT", 0)):
            os.kill(os.getpid(), signal.SIGKILL)

class Gradients(Callback):
    # Keeps the gradients of the first step.

    def on_step_end(self, trainer, steps):
        if trainer.record.progress.step == 1:
            torch.save({name: p.grad for name, p in trainer.model.adapter.named_parameters()}, "gradients.pt")
"""
QUICK = ("plot_at_end=off",)


@pytest.fixture(scope="module")
def lab(shared_project):
    (shared_project.path / "watch.py").write_text(CALLBACKS)
    settings = shared_project.path / "config.ini"
    settings.write_text(
        settings.read_text()
        .replace("base_model = smollm2", "base_model = tiny   ")
        .replace("sample_count = 3", "sample_count = 0")
    )
    return shared_project


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pairs(count: int) -> list[dict]:
    return [{"prompt": f"{number}?", "completion": f"{number * number} " * (1 + number % 4)} for number in range(count)]


def train(lab, *words: str, **environment: str):
    done = lab.run("LanguageModel", *QUICK, *words, **environment)
    assert done.returncode == 0, done.stderr + done.stdout
    run = lab.runs("LanguageModel")[-1]
    return run, json.loads((run / "metrics.json").read_text())


def greedy(folder: Path, question: str, most: int = 20) -> list[int]:
    """Answer token by token, without a cache."""
    base = load(str(folder))
    chat = [{"role": "user", "content": question}]
    ids = base.tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + most and (len(ids) == start or ids[-1] not in base.end_ids):
            hidden = base.model.hidden(torch.tensor(ids), PackedRows.of([len(ids)]))
            ids.append(int(base.model.logits(hidden[-1:]).argmax()))
    return ids[start:]


def test_an_answer_is_learned_with_the_end_of_its_turn(lab):
    """A1: after training the model says what it was taught, and stops."""
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ok"}]
    data = write(lab.path / "ok.jsonl", [{"messages": chat}] * 8)
    words = (f"train_data={data}", f"val_data={data}", "epochs=40", "batch_size=4", "learning_rate=3e-3", "trained=all")
    run, metrics = train(lab, *words, "sample_count=1", "sample_tokens=20")
    assert metrics["history"]["val_loss"][-1] < 0.05
    assert metrics["summary"]["train_data"]["trained_tokens"] == 8 * 3
    assert greedy(run / "model", "Hi") == [79, 107, 260]
    (sample,) = json.loads((run / "samples.json").read_text())
    assert (sample["answer"], sample["expected"], sample["finish"], sample["tokens"]) == ("Ok", "Ok", "stop", 3)
    settings = json.loads((run / "model" / "generation_config.json").read_text())
    assert settings["eos_token_id"] == [257, 260]
    assert metrics["history"]["val_perplexity"][-1] == pytest.approx(
        2.718281828 ** metrics["history"]["val_loss"][-1], rel=1e-6
    )
    assert metrics["summary"]["tokens_per_second"] > 0 and metrics["summary"]["peak_memory_bytes"] > 1e8
    best = metrics["best"]["value"]
    assert metrics["summary"]["perplexity"] == pytest.approx(2.718281828**best, rel=1e-6)


def test_a_run_leaves_the_adapter_and_no_frozen_weights(lab):
    data = write(lab.path / "pairs.jsonl", pairs(12))
    run, metrics = train(lab, f"train_data={data}", "epochs=1", "lora_targets=attention", "lora_rank=4")
    names = load_file(run / "model.safetensors").keys()
    assert all(name.startswith("adapter.lora_") for name in names) and len(names) == 8
    newest = sorted((run / "checkpoints").iterdir())[-1]
    assert load_file(newest / "weights.safetensors").keys() == names
    state = load_file(newest / "state.safetensors")
    assert sum(value.numel() for value in state.values()) < 3 * metrics["summary"]["trainable"]
    base = load("tiny")
    adapter = load_adapter(run / "adapter", base.model)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == metrics["summary"]["parameters"]
    assert all(b.norm() > 0 for _, _, b in adapter.tensors())  # B5
    account = metrics["summary"]["train_data"]
    assert (account["rows_read"], account["rows_used"], account["rows_left_out"]) == (12, 12, {})


def test_a_killed_run_goes_on_to_the_same_bits(lab):
    """B3: rows, losses, learning rates and weights, through the middle of an epoch."""
    data = write(lab.path / "ten.jsonl", pairs(11))
    words = (
        f"train_data={data}", "epochs=3", "batch_size=2", "log_every_n_steps=1", "checkpoint_every_n_steps=1",
        "callbacks=watch:Watch",
    )  # fmt: skip
    whole, metrics = train(lab, *words)
    assert metrics["summary"]["steps"] == 15 and len(metrics["readings"]["step"]) == 15
    assert metrics["readings"]["learning_rate"][-1] < metrics["readings"]["learning_rate"][0] / 10
    killed = lab.run("LanguageModel", *QUICK, *words, KILL_AT="7")
    assert killed.returncode == -9
    gone_on = lab.run("LanguageModel", "--resume")
    assert gone_on.returncode == 0, gone_on.stderr
    run = lab.runs("LanguageModel")[-1]
    again = json.loads((run / "metrics.json").read_text())
    assert run != whole and again["history"] == metrics["history"] and again["readings"] == metrics["readings"]
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("name", ["llama, tied", "qwen3"])
def test_the_first_steps_loss_and_gradients_are_those_of_transformers_and_peft(lab, name):
    """With a folder of transformers' and an adapter of peft's. In bf16 the loss is near it, and adapters are fp32."""
    theirs, ours = twins(name)
    adapter = LoraBank(ours).create("a", LoraSettings(rank=4, alpha=6))
    fill(adapter)
    folder, peft_folder = lab.path / f"{name[:5]}", lab.path / f"{name[:5]}_adapter"
    theirs.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    twin = with_peft(theirs, adapter)
    twin.save_pretrained(peft_folder)
    rows = [
        {"prompt": "ab", "completion": "cde"},
        {"prompt": "f", "completion": ""},
        {"prompt": "", "completion": "gh"},
    ]
    chats = [[{"role": "user", "content": row["prompt"] or "?"}, {"role": "assistant", "content": row["completion"]}]
             for row in rows]  # fmt: skip
    data = write(lab.path / "chats.jsonl", [{"messages": chat} for chat in chats])
    losses = []
    total = sum(len(chat[1]["content"]) + 1 for chat in chats)  # with the end of each turn
    for chat in chats:
        opening = f"<|im_start|>user\n{chat[0]['content']}<|im_end|>\n<|im_start|>assistant\n"
        tokenizer = byte_tokenizer()
        read = tokenizer(opening)["input_ids"]
        answer = [*tokenizer(chat[1]["content"])["input_ids"], 260]
        ids = torch.tensor([*read, *answer])
        found = twin(ids[None]).logits[0].log_softmax(1)
        places = torch.arange(len(read) - 1, len(ids) - 1)
        losses.append(-found[places, ids[1:][places]].sum())
    wanted = sum(losses) / total
    wanted.backward()
    words = (f"base_model={folder}", f"adapter={peft_folder}", f"train_data={data}", f"val_data={data}", "epochs=1",
             "batch_size=3", "log_every_n_steps=1", "gradient_clip_value=0", "learning_rate=1e-9",
             "callbacks=watch:Gradients")  # fmt: skip
    _, metrics = train(lab, *words)
    assert metrics["summary"]["train_data"]["trained_tokens"] == total
    assert metrics["readings"]["train_loss"] == [pytest.approx(wanted.item(), abs=1e-5)]
    assert metrics["history"]["val_loss"] == [pytest.approx(wanted.item(), abs=1e-5)]
    assert_gradients(adapter, torch.load(lab.path / "gradients.pt"), twin)
    if name == "qwen3":
        run, low = train(lab, *words, "precision=bf16")
        assert low["readings"]["train_loss"] == [pytest.approx(wanted.item(), rel=0.02)]
        assert low["readings"]["train_loss"] != metrics["readings"]["train_loss"]
        assert {value.dtype for value in torch.load(lab.path / "gradients.pt").values()} == {torch.float32}
        assert {value.dtype for value in load_file(run / "model.safetensors").values()} == {torch.float32}


def test_batches_weigh_by_tokens(lab):
    """B1: rows of 1 and of 9 trained tokens, in one batch and in two whose gradients are added up."""
    rows = [{"prompt": "a", "completion": ""}, {"prompt": "b", "completion": "eight by"}]
    for number, row in enumerate(rows):
        row["messages"] = [
            {"role": "user", "content": row.pop("prompt")},
            {"role": "assistant", "content": row.pop("completion") or " "},
        ]
        assert number < 2
    data = write(lab.path / "two.jsonl", rows)
    found = []
    for words in (("batch_size=2",), ("batch_size=1", "accumulation_steps=2")):
        (lab.path / "norms.txt").unlink(missing_ok=True)
        words += (f"train_data={data}", f"val_data={data}", "epochs=1", "gradient_clip_value=0")
        _, metrics = train(lab, *words, "callbacks=watch:Watch")
        (norm,) = map(float, (lab.path / "norms.txt").read_text().split())
        found.append((metrics["history"]["train_loss"][0], norm, metrics["summary"]["steps"]))
    assert found[0][2] == found[1][2] == 1
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-6)
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-5)


def test_all_weights_and_a_merged_model_are_what_transformers_loads(lab):
    import transformers

    data = write(lab.path / "pairs.jsonl", pairs(12))
    _, plain = train(lab, f"train_data={data}", "epochs=1", "trained=all", "learning_rate=1e-3")
    run = lab.runs("LanguageModel")[-1]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(run / "model", dtype=torch.float32)
    assert theirs.generation_config.eos_token_id == [257, 260]
    assert plain["summary"]["trainable"] == sum(parameter.numel() for parameter in theirs.parameters())
    tokens = torch.arange(40, 60)
    own = load(str(run / "model")).model
    ours = own.logits(own.hidden(tokens, PackedRows.of([20])))
    assert (theirs(tokens[None]).logits[0] - ours).abs().max() < 1e-5

    run, _ = train(lab, f"train_data={data}", "epochs=1", "merge=on", "learning_rate=1e-2")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(run / "merged", dtype=torch.float32)
    base = load("tiny").model
    rows = AdapterRows((load_adapter(run / "adapter", base),), (20,))
    ours = base.logits(base.hidden(tokens, PackedRows.of([20]), rows))
    assert (theirs(tokens[None]).logits[0] - ours).abs().max() < 1e-4
    assert (base.logits(base.hidden(tokens, PackedRows.of([20]))) - ours).abs().max() > 0.01
    more, _ = train(lab, f"train_data={data}", "epochs=1", f"adapter={run / 'adapter'}", "learning_rate=1e-6")
    first, then = (load_file(each / "adapter" / "adapter_model.safetensors") for each in (run, more))
    largest = max((first[name] - then[name]).abs().max() for name in first)
    assert 0 < largest < 1e-4  # it went on from there


def test_low_precision_trains_what_full_precision_trains(lab):
    """B6: the adapter is fp32 over a base in bf16, and moves as far."""
    data = write(lab.path / "pairs.jsonl", pairs(12))
    moved = []
    for words in (("precision=fp32",), ("precision=bf16",), ("precision=bf16", "recompute_activations=on")):
        run, metrics = train(lab, f"train_data={data}", "epochs=2", "learning_rate=1e-5", *words)
        adapter = load_file(run / "adapter" / "adapter_model.safetensors")
        assert {value.dtype for value in adapter.values()} == {torch.float32}
        state = load_file(sorted((run / "checkpoints").iterdir())[-1] / "state.safetensors")
        assert not any(value.dtype == torch.bfloat16 for value in state.values())
        size = sum(value.abs().sum() for name, value in adapter.items() if "lora_B" in name).item()
        moved.append((size, metrics["history"]["val_loss"][-1]))
    # Noise of gradients in bf16 takes a part of Adam's first steps; nearest rounding of weights would take all.
    assert moved[1][0] == pytest.approx(moved[0][0], rel=0.3) and moved[1][1] == pytest.approx(moved[0][1], rel=0.01)
    assert moved[2] == pytest.approx(moved[1], rel=1e-2)


def test_check_seeds_and_dry_run(lab):
    data = write(lab.path / "pairs.jsonl", pairs(12))
    before = len(lab.runs("LanguageModel"))
    done = lab.run("LanguageModel", *QUICK, f"train_data={data}", "--dry-run")
    assert done.returncode == 0 and len(lab.runs("LanguageModel")) == before, done.stderr
    assert "base model tiny: 1,017,600 parameters, frozen" in done.stderr + done.stdout
    done = lab.run("LanguageModel", *QUICK, f"train_data={data}", "learning_rate=1e-2", "--check")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "0 failed" in done.stdout and "every parameter gets a gradient" in done.stdout
    done = lab.run("LanguageModel", *QUICK, f"train_data={data}", "epochs=1", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    first, second = (load_file(run / "model.safetensors") for run in lab.runs("LanguageModel")[-2:])
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_rows_left_out_are_counted_and_named(lab):
    rows = [*pairs(6), {"prompt": "x", "completion": ""}, {"prompt": "y" * 90, "completion": "z"}]
    data = write(lab.path / "mixed.jsonl", rows)
    _, metrics = train(lab, f"train_data={data}", "epochs=1", "max_length=64")
    account = metrics["summary"]["train_data"]
    assert (account["rows_read"], account["rows_used"]) == (8, 6)
    assert sum(account["rows_left_out"].values()) == 2
    assert any("line 7" in place for places in account["places_left_out"].values() for place in places)


def test_the_date_of_a_template_is_the_runs(lab):
    template = lab.path / "dated.jinja"
    template.write_text(
        "{{ strftime_now('%d %B %Y') }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' "
        "+ message['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    chats = [[{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": f"{n * n}"}] for n in range(6)]
    data = write(lab.path / "chats.jsonl", [{"messages": chat} for chat in chats])
    words = (f"train_data={data}", f"template={template}", "epochs=3", "sample_count=1")
    killed = lab.run(
        "LanguageModel", *words, "template_date=2026-03-31", "callbacks=watch:Watch", "checkpoint_every_n_steps=1",
        KILL_AT="2",
    )  # fmt: skip
    assert killed.returncode == -9, killed.stderr
    refused = lab.run("LanguageModel", "--resume", "template_date=2026-04-01")
    assert refused.returncode != 0 and "template_date=2026-03-31" in refused.stderr
    done = lab.run("LanguageModel", "--resume")
    assert done.returncode == 0, done.stderr
    (sample,) = json.loads((lab.runs("LanguageModel")[-1] / "samples.json").read_text())
    assert sample["prompt"].startswith("31 March 2026")
    wrong = lab.run("LanguageModel", *words, "template_date=yesterday")
    assert wrong.returncode == 2 and "template_date = yesterday: must be a date such as 2026-03-31" in wrong.stderr


def test_another_base_model_is_not_gone_on_with_and_one_with_an_infinite_weight_is_told(lab):
    folder = lab.path / "base"
    export_model(folder, load("tiny"))
    weights = load_file(folder / "model.safetensors")
    data = write(lab.path / "pairs.jsonl", pairs(12))
    words = (f"train_data={data}", f"base_model={folder}", "epochs=2", "batch_size=4", "checkpoint_every_n_steps=1")
    killed = lab.run("LanguageModel", *words, "callbacks=watch:Watch", KILL_AT="3")
    assert killed.returncode == -9, killed.stderr
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name][0, 0] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    refused = lab.run("LanguageModel", "--resume")
    assert refused.returncode != 0 and "its weights have changed since" in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr
    weights[name][0, 0] = torch.inf
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    stopped = lab.run("LanguageModel", *words)
    assert stopped.returncode == 3 and f"{name} has numbers that are not finite" in stopped.stderr, stopped.stderr


def test_a_rate_that_diverges_ends_the_run_and_keeps_the_last_good_checkpoint(lab):
    data = write(lab.path / "pairs.jsonl", pairs(12))
    words = (f"train_data={data}", "epochs=4", "batch_size=4", "warmup_share=0", "learning_rate=1e25")
    done = lab.run("LanguageModel", *QUICK, *words, "trained=all", "checkpoint_every_n_steps=1", "log_every_n_steps=1")
    said = done.stderr + done.stdout
    assert done.returncode not in (0, 1), said
    assert any(word in said for word in ("not finite", "NaN", "infinite")) and "step" in said, said
    run = lab.runs("LanguageModel")[-1]
    newest = sorted((run / "checkpoints").iterdir())[-1] if any((run / "checkpoints").iterdir()) else None
    if newest is not None:
        assert all(value.isfinite().all() for value in load_file(newest / "weights.safetensors").values())


@pytest.mark.parametrize(
    ("rows", "words", "code", "texts"),
    [
        ([{"prompt": "q" * 200, "completion": "a"}] * 8, ["max_length=64"], 3, ["8 of 8 rows", "max_length=64", "202"]),
        ([{"prompt": "a", "completion": "b"}], [], 3, ["none is left to validate with", "val_data"]),
        ([{"prompt": "a", "completion": ""}] * 3, [], 3, ["3 of 3 rows", "the answer is empty"]),
        ([{"prompt": "a", "completion": ""}] * 3, ["on_bad_row=stop"], 3, ["line 1", "the answer is empty"]),
        ([{"ask": "a"}], [], 3, ["no format fits rows with `ask`", "data_columns"]),
        (None, ["base_model=/nowhere/model"], 3, ["model = /nowhere/model", "no such file or folder"]),
        (None, ["train_data=/nowhere.jsonl"], 3, ["/nowhere.jsonl"]),
        (None, ["max_length=4096"], 2, ["max_length = 4096", "context of tiny is 2048"]),
        (None, ["precision=fp16"], 2, ["fp16"]),
        (None, ["trained=all", "merge=on"], 2, ["merge = on is for trained = lora"]),
        (None, ["lora_targets=attention, heads"], 2, ["lora_targets", "must be one of attention, mlp, unembedding"]),
        (None, ["adapter=/nowhere"], 3, ["/nowhere", "adapter_config.json"]),
        (None, ["adam_betas=0.9"], 2, ["adam_betas"]),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_first_step(lab, rows, words, code, texts):
    data = [] if rows is None else [f"train_data={write(lab.path / 'bad.jsonl', rows)}"]
    before = len(lab.runs("LanguageModel"))
    done = lab.run("LanguageModel", *QUICK, *data, *words)
    said = done.stderr + done.stdout
    assert done.returncode == code, said
    for text in texts:
        assert text in said
    assert "Traceback" not in said and len(lab.runs("LanguageModel")) == before
