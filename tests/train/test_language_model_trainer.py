"""Fine-tuning through the command line: what is learned, what a run leaves, resuming, and data that can't be used.

Kinds of silently wrong results that users of other tools met, and the tests that would see them here (without a file:
in this one; `test_the_tests_of_each_kind_are_there` holds the names):

the end of a turn is never learned | data/test_chat_renderer.py::test_the_end_of_the_turn_is_trained_on
    data/test_token_batches.py::test_a_model_that_has_learnt_an_answer_ends_it
    test_an_answer_is_learned_with_the_end_of_its_turn
two tokens that begin a text, or none | data/test_chat_renderer.py::test_one_bos
    llm/test_gguf_file.py::test_text_begins_and_answers_end_as_the_metadata_says
    llm/test_model_export.py::test_text_begins_in_the_export_as_it_did
the template says more than the data | data/test_chat_renderer.py::test_a_default_system_message_is_told
    data/test_chat_renderer.py::test_a_message_that_the_template_leaves_out_is_refused
    commands/test_preview.py::test_a_template_of_ones_own_is_shown_with_what_it_adds
    test_the_date_of_a_template_is_the_runs
the mask is shifted | data/test_chat_renderer.py::test_thoughts_that_the_template_drops_are_not_trained_on
    data/test_chat_renderer.py::test_whatever_a_user_says_changes_nothing_of_what_is_trained
    data/test_chat_renderer.py::test_an_empty_thought_of_the_template_is_not_trained_on
    data/test_chat_renderer.py::test_in_any_conversation_prompts_are_a_samplers_and_others_words_change_no_target
    data/test_chat_renderer.py::test_the_end_of_an_answer_is_its_own_where_the_end_of_text_stands_once
nothing is left to learn | data/test_token_rows.py::test_nothing_left_to_learn_stops_with_figures
    commands/test_preview.py::test_nothing_to_learn_stops_before_the_first_step
    test_what_cannot_be_trained_is_refused_before_the_first_step
    test_rows_left_out_are_counted_and_named
tool calls are altered | data/test_chat_renderer.py::test_tool_calls_are_rendered_once_as_json
    data/test_chat_renderer.py::test_arguments_keep_what_they_have_and_no_more
    data/test_conversations.py::test_tool_calls_of_parquet_have_no_arguments_of_other_rows
    data/test_conversations.py::test_what_is_null_beside_the_content_is_not_there
    data/test_conversations.py::test_a_tool_has_no_parameters_of_other_rows_tools
    data/test_conversations.py::test_arguments_that_are_no_json_are_not_trained_on
a reader changes the text | data/test_text_files.py::test_json_lines_keep_every_character
    data/test_text_files.py::test_what_cant_be_read_is_named_by_its_line
    data/test_text_files.py::test_a_cell_of_parquet_that_cant_be_read_costs_its_row
    data/test_token_rows.py::test_tokens_do_not_depend_on_the_kind_of_file
chats dropped for their order | data/test_chat_renderer.py::test_every_order_that_the_template_renders_is_used
    data/test_token_rows.py::test_orders_that_a_template_refuses_are_left_out_in_its_words
    data/test_token_rows.py::test_bad_rows_are_counted_and_named
prompt and answer share a token | data/test_chat_renderer.py::test_prompt_and_completion_are_encoded_apart
    data/test_chat_renderer.py::test_answers_of_a_conversation_are_encoded_apart
the loss is weighted by batch | data/test_token_batches.py::test_micro_batches_weigh_their_tokens
    test_batches_weigh_by_tokens
    test_two_processes_weigh_by_tokens_too
packed rows see each other | model/test_causal_lm.py::test_packed_rows_never_see_each_other
    data/test_token_batches.py::test_rows_of_a_batch_do_not_see_each_other
    llm/test_engine.py::test_rows_of_a_call_never_see_each_other
a resumed run trains other rows | test_a_killed_run_goes_on_to_the_same_bits
    data/test_token_batches.py::test_a_run_that_is_gone_on_with_reads_what_was_left
    test_another_base_model_is_not_gone_on_with_and_one_with_an_infinite_weight_is_told
the optimizer's state is lost | llm/test_engine.py::test_loading_with_and_without_the_optimizer
    llm/test_adapter_state_files.py::test_an_adapter_goes_on_from_its_files_to_the_same_bits
recomputation leaves no gradient | test_low_precision_and_recomputation_train_what_full_precision_trains
    model/test_causal_lm.py::test_recomputation_changes_no_gradient_and_every_part_of_an_adapter_gets_one
low precision stands still, or goes on with NaN | test_low_precision_and_recomputation_train_what_full_precision_trains
    llm/test_engine.py::test_adapters_and_moments_are_float32_over_a_base_in_bfloat16
    llm/test_engine.py::test_numbers_that_are_not_finite_end_the_call_and_change_nothing
    test_a_rate_that_diverges_ends_the_run_and_keeps_the_last_good_checkpoint
rows are lost at the end | data/test_token_batches.py::test_no_row_is_lost_at_the_end
    test_planned_steps_are_the_steps_made
an adapter's scale is lost | llm/test_adapter_files.py::test_pefts_files_and_ours_are_the_same
    llm/test_adapter_files.py::test_linear_layers_that_were_trained_whole_are_changes_of_full_rank
    llm/test_adapter_files.py::test_what_would_be_ignored_is_refused
    llm/test_adapter_files.py::test_peft_changes_no_layer_that_only_ends_in_the_same_name
a merged model isn't the adapted one | llm/test_model_export.py::test_merged_export_is_the_model_with_its_adapter
    llm/test_model_export.py::test_folders_that_do_not_do
    test_all_weights_and_a_merged_model_are_what_transformers_loads
tied embeddings come apart | llm/test_model_export.py::test_added_tokens_are_in_the_export
    llm/test_base_model.py::test_folders_that_hold_no_usable_model
    test_what_cant_be_merged_is_refused_before_training
GGUF is read in another layout | llm/test_gguf_file.py::test_plain_files_give_the_models_logits
    llm/test_gguf_file.py::test_q4_k_is_gguf_pys_to_the_bit
    llm/test_gguf_file.py::test_what_cannot_be_read_is_named
    llm/test_gguf_file.py::test_what_the_metadata_says_of_the_model_is_done_or_refused
an exported model doesn't stop | llm/test_model_export.py::test_transformers_stops_at_the_end_of_turn
    llm/test_model_export.py::test_export_keeps_template_tokenizer_and_all_ids_that_end
which logprob it is | llm/test_token_choice.py::test_meaning_of_a_logprob
    llm/test_engine.py::test_samples_are_of_the_weights_as_they_are_and_have_the_trainers_logprobs
stop strings | llm/test_sampling.py::test_stops
    llm/test_text_stream.py::test_stop_strings_are_found_however_the_bytes_come
characters are cut | llm/test_sampling.py::test_characters_are_never_cut
    llm/test_text_stream.py::test_no_piece_holds_half_a_character
seeds without effect, or the same for all | llm/test_sampling.py::test_seeds
edges of settings | llm/test_sampling_settings.py::test_what_is_not_allowed_is_said
    llm/test_sampling_settings.py::test_null_is_the_default_and_0_is_not
ends and counts | llm/test_sampling.py::test_ends_and_counts
a prefix of other weights is used | llm/test_sampling.py::test_prefixes_go_by_the_weights
    llm/test_sampled_weights.py::test_identity_follows_changes_in_place_and_in_place_of
who has gone is still served | llm/test_sampling.py::test_a_cancelled_request_leaves_nothing
a neighbour changes the answer | llm/test_sampling.py::test_neighbours_change_nothing
    model/test_lora.py::test_several_adapters_in_one_batch_equal_each_alone
text is decoded and encoded again | data/test_chat_renderer.py::test_a_prompt_goes_on_from_what_was_sampled
advantages and divergences | model/test_token_losses.py::test_divergences_of_half_half_from_nine_to_one
    model/test_token_losses.py::test_advantages_are_centred_in_their_group_and_exactly_zero_where_rewards_are_equal
    model/test_token_losses.py::test_a_step_with_the_penalty_alone_lowers_the_divergence
rollouts that were cut off | model/test_token_losses.py::test_tokens_of_rollouts_that_were_cut_off_are_in_no_denominator
the sampler has old weights | llm/test_engine.py::test_versions_stay_what_they_are
    llm/test_engine.py::test_a_sample_under_way_keeps_its_weights_while_the_adapter_is_trained
"""

import json
import math
import os
import re
import subprocess
import sys
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


def test_the_tests_of_each_kind_are_there():
    tests = Path(__file__).resolve().parent.parent
    lines = (__doc__ or "").split("\n\n")[2].splitlines()
    kinds = [line.split(" | ")[0] for line in lines if " | " in line]
    assert len(kinds) == len(set(kinds)) > 30
    for line in lines:
        file, _, name = line.split(" | ")[-1].strip().rpartition("::")
        text = (tests / file if file else Path(__file__)).read_text()
        assert f"\ndef {name}(" in text, f"{file or 'this file'} has no {name}"


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
    """After training the model says what it was taught, and stops."""
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ok"}]
    data = write(lab.path / "ok.jsonl", [{"messages": chat}] * 8)
    words = (f"train_data={data}", f"val_data={data}", "epochs=18", "batch_size=4", "learning_rate=6e-3", "trained=all")
    run, metrics = train(lab, *words, "sample_count=1", "sample_tokens=20", "saving_share=0.01")
    assert metrics["history"]["val_loss"][-1] < 0.05
    assert metrics["summary"]["train_data"]["trained_tokens"] == 8 * 3
    assert greedy(run / "model", "Hi") == [79, 107, 260]
    told = [line.partition(" INFO ")[2] for line in (run / "train.log").read_text().splitlines()]
    assert told[told.index("line 1, user: Hi") + 1] == "    now: Ok"
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
    assert all(b.norm() > 0 for _, _, b in adapter.tensors())
    account = metrics["summary"]["train_data"]
    assert (account["rows_read"], account["rows_used"], account["rows_left_out"]) == (12, 12, {})


def test_a_killed_run_goes_on_to_the_same_bits(lab):
    """Rows, losses, learning rates and weights, through the middle of an epoch; with rows that are left out."""
    data = write(lab.path / "ten.jsonl", [{"prompt": "x", "completion": ""}, *pairs(11), {"prompt": "z"}])
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


ONE_AND_NINE = [
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": content}] for content in ("", "eight by")
]  # trained on are the end of the turn, and 8 letters with it


@torch.no_grad()
def nll_of(base, chat: list[dict]) -> torch.Tensor:
    """The negative log-likelihood of each token of a chat's answer."""
    prompt = base.tokenizer.apply_chat_template(chat[:1], add_generation_prompt=True)["input_ids"]
    answer = [*chat[1]["content"].encode(), 260]
    ids = torch.tensor([*prompt, *answer])
    logits = base.model.logits(base.model.hidden(ids, PackedRows.of([len(ids)])))
    places = torch.arange(len(prompt) - 1, len(ids) - 1)
    return -logits.log_softmax(-1)[places, ids[places + 1]]


def test_batches_weigh_by_tokens(lab):
    """Rows of 1 and of 9 trained tokens: in one batch, and in two whose gradients are added up."""
    data = write(lab.path / "two.jsonl", [{"messages": chat} for chat in ONE_AND_NINE])
    base = load("tiny")
    losses = [nll_of(base, chat) for chat in ONE_AND_NINE]
    assert [len(each) for each in losses] == [1, 9]
    wanted, of_batches = torch.cat(losses).mean().item(), torch.stack([each.mean() for each in losses]).mean().item()
    assert abs(wanted - of_batches) > 0.001, "the two ways to average can be told apart"
    found = []
    for words in (("batch_size=2",), ("batch_size=1", "accumulation_steps=2")):
        (lab.path / "norms.txt").unlink(missing_ok=True)
        words += (f"train_data={data}", f"val_data={data}", "epochs=1", "gradient_clip_value=0", "learning_rate=1e-9")
        _, metrics = train(lab, *words, "callbacks=watch:Watch")
        (norm,) = map(float, (lab.path / "norms.txt").read_text().split())
        assert metrics["history"]["train_loss"][0] == pytest.approx(wanted, abs=2e-6)
        assert metrics["history"]["val_loss"][0] == pytest.approx(wanted, abs=2e-6)  # by tokens too
        assert metrics["summary"]["steps"] == 1
        found.append(norm)
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.slow
def test_two_processes_weigh_by_tokens_too(lab):
    """A row in each process, and then three rows in two batches, of which the second has none for one process."""
    rows = [{"messages": chat} for chat in [*ONE_AND_NINE, ONE_AND_NINE[0][:1] + ONE_AND_NINE[1][1:]]]
    data = write(lab.path / "three.jsonl", rows)
    words = (f"train_data={data}", f"val_data={data}", "epochs=2", "batch_size=2", "gradient_clip_value=0")
    alone, metrics = train(lab, *words)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "LanguageModel", *QUICK, *words], cwd=lab.path, env=environment,
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = lab.runs("LanguageModel")[-1]
    shared = json.loads((run / "metrics.json").read_text())
    assert run != alone and shared["summary"]["steps"] == metrics["summary"]["steps"] == 4
    for name in ("train_loss", "val_loss"):
        assert shared["history"][name] == pytest.approx(metrics["history"][name], rel=1e-5)
    one, two = (load_file(each / "adapter" / "adapter_model.safetensors") for each in (alone, run))
    for name, value in one.items():  # Adam's first steps divide small gradients by themselves
        assert (value - two[name]).norm() < 0.01 * value.norm(), name


@pytest.mark.parametrize(
    ("count", "words", "steps"),
    [(7, ("batch_size=2",), 4), (3, ("batch_size=8",), 1), (7, ("batch_size=2", "accumulation_steps=3"), 2)],
)
def test_planned_steps_are_the_steps_made(lab, count, words, steps):
    data = write(lab.path / "few.jsonl", pairs(count))
    words += (f"train_data={data}", f"val_data={data}", "epochs=3", "log_every_n_steps=1", "warmup_share=0")
    _, metrics = train(lab, *words, "final_rate_share=0.1")
    assert metrics["summary"]["steps"] == 3 * steps and metrics["readings"]["step"] == list(range(1, 3 * steps + 1))
    # A cosine from the peak, which a step after the last one would bring to a tenth of it.
    shares = [0.1 + 0.45 * (1 + math.cos(math.pi * step / (3 * steps))) for step in range(3 * steps)]
    assert [rate / 5e-4 for rate in metrics["readings"]["learning_rate"]] == pytest.approx(shares, rel=1e-6)


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
    card = (more / "adapter" / "README.md").read_text()
    assert "| adapter | rank 16, scale 2, on attention, mlp |" in card


def test_low_precision_and_recomputation_train_what_full_precision_trains(lab):
    """The adapter is fp32 over a base in bf16, and moves as far."""
    data = write(lab.path / "pairs.jsonl", pairs(12))
    weights, sizes = [], []
    for words in (("precision=fp32",), ("precision=fp32", "recompute_activations=on"),
                  ("precision=bf16", "recompute_activations=on")):  # fmt: skip
        run, _ = train(lab, f"train_data={data}", "epochs=2", "learning_rate=1e-5", *words)
        last = sorted((run / "checkpoints").iterdir())[-1]  # adapter/ is of the best epoch, which noise may choose
        adapter, state = load_file(last / "weights.safetensors"), load_file(last / "state.safetensors")
        assert {value.dtype for value in adapter.values()} == {torch.float32}
        assert not any(value.dtype == torch.bfloat16 for value in state.values())
        assert all((value.flatten(1).norm(dim=1) > 0).all() for name, value in adapter.items() if "lora_B" in name)
        weights.append(adapter)
        sizes.append(sum(value.abs().sum() for name, value in adapter.items() if "lora_B" in name).item())
    assert all((value - weights[1][name]).abs().max() < 1e-7 for name, value in weights[0].items())
    assert sizes[2] == pytest.approx(sizes[0], rel=0.01)  # rounding of weights to bf16 would leave them as they were


def test_check_seeds_and_dry_run(lab):
    data = write(lab.path / "pairs.jsonl", pairs(12))
    before = len(lab.runs("LanguageModel"))
    done = lab.run("LanguageModel", *QUICK, f"train_data={data}", "--dry-run")
    assert done.returncode == 0 and len(lab.runs("LanguageModel")) == before, done.stderr
    assert "base model tiny: 1,017,600 parameters, frozen" in done.stderr + done.stdout
    words = (
        "learning_rate=1e-2",
        "batch_size=16",
    )  # one batch: A of an adapter gets its gradient from the second step on
    done = lab.run("LanguageModel", *QUICK, f"train_data={data}", *words, "--check")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "0 failed" in done.stdout
    assert re.search(r"^ok +every parameter gets a gradient +all 14 in 2 steps", done.stdout, re.MULTILINE), done.stdout
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


def test_what_cant_be_merged_is_refused_before_training(lab):
    """A model whose unembedding is its embedding, and that only transformers knows."""
    import transformers

    config = transformers.GPT2Config(vocab_size=261, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    transformers.GPT2LMHeadModel(config).save_pretrained(lab.path / "tied")
    byte_tokenizer().save_pretrained(lab.path / "tied")
    data, before = write(lab.path / "pairs.jsonl", pairs(12)), len(lab.runs("LanguageModel"))
    words = (f"train_data={data}", f"base_model={lab.path / 'tied'}", "lora_targets=unembedding")
    done = lab.run("LanguageModel", *QUICK, *words, "merge=on")
    assert done.returncode == 3 and "lm_head shares its weight with the embedding" in done.stderr, done.stderr
    assert len(lab.runs("LanguageModel")) == before


@pytest.mark.slow
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
    refused = lab.run("LanguageModel", "--resume", "base_model=tiny", "lora_rank=4")  # weights of other shapes, too
    assert refused.returncode != 0 and "tiny has the digest tiny:0, std 0.1: it is another" in refused.stderr, (
        refused.stderr
    )
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
