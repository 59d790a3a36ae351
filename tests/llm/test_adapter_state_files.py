"""Adapters saved and loaded: to the bit, with and without the optimizer, whole or not there, and of this model."""

import json
from pathlib import Path

import pytest
import torch
from warm_python import run_python

from llm.adam import AdamSettings
from llm.adapter_files import load_adapter
from llm.adapter_state_files import OPTIMIZER, STATE, load_state, read_told, save_state
from llm.base_model import BaseModel
from llm.engine import Engine
from llm.loss_pass import LossRow
from llm.model_error import ModelError
from model.causal_lm import CausalLM, DecoderShape
from model.lora import LoraSettings

T0 = DecoderShape(vocabulary=261, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_width=64, context=64)


def engine(seed: int = 0) -> Engine:
    model = CausalLM(T0).draw(seed, std=0.2)
    return Engine(BaseModel(model, None, "", T0.context, (257,), None, "t0", f"t0:{seed}" + 60 * "0", {}))


def step(made: Engine, name: str, seed: int) -> None:
    tokens = torch.randint(0, 261, (10,), generator=torch.Generator().manual_seed(seed))
    made.forward_backward(name, [LossRow(tokens[:-1], tokens[1:], {"weights": torch.ones(9)})])
    made.optimizer_step(name, AdamSettings(1e-2))


def trained() -> Engine:
    made = engine()
    made.create("a", LoraSettings(rank=4, targets=("attention", "unembedding")))
    for seed in range(3):
        step(made, "a", seed)
    return made


def weights(made: Engine, name: str) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in made.bank[name].parameters()])


def test_an_adapter_goes_on_from_its_files_to_the_same_bits(tmp_path):
    made = trained()
    version = save_state(tmp_path / "s", made.base, made.state("a"), {"user": {"renderer": "x"}})
    save_state(tmp_path / "w", made.base, made.state("a", optimizer=False))
    assert version == made.hold_version("a") == read_told(tmp_path / "s")["version"]
    assert read_told(tmp_path / "s")["notes"] == {"user": {"renderer": "x"}}
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", STATE
    ]  # fmt: skip
    state = load_state(tmp_path / "s", made.base)
    other = engine()
    other.create_from("with", state, optimizer=True)
    other.create_from("without", state, optimizer=False)
    assert torch.equal(weights(other, "with"), weights(made, "a")) and other.hold_version("with") == version
    for each, name in ((made, "a"), (other, "with"), (other, "without")):
        step(each, name, 9)
    assert torch.equal(weights(other, "with"), weights(made, "a"))
    assert (weights(other, "without") - weights(made, "a")).abs().max() > 1e-4
    assert load_state(tmp_path / "w", made.base).moments is None
    assert load_adapter(tmp_path / "s", made.base.model) is not None  # PEFT's own files


def test_an_adapter_of_pefts_has_weights_only(tmp_path):
    made = trained()
    save_state(tmp_path / "s", made.base, made.state("a"))
    (tmp_path / "s" / STATE).unlink()
    state = load_state(tmp_path / "s", made.base)
    assert state.moments is None and state.step == 0
    made.create_from("b", state, optimizer=False)
    assert torch.equal(weights(made, "b"), weights(made, "a"))


def test_a_save_replaces_the_one_before_and_leaves_nothing_else(tmp_path):
    made = trained()
    save_state(tmp_path / "s", made.base, made.state("a"))
    step(made, "a", 5)
    save_state(tmp_path / "s", made.base, made.state("a", optimizer=False))
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert read_told(tmp_path / "s")["step"] == 4 and not (tmp_path / "s" / OPTIMIZER).exists()


def test_a_save_that_is_cut_off_is_not_there(tmp_path):
    """The process ends after each file in turn; the save before stays what is loaded."""
    made = trained()
    save_state(tmp_path / "s", made.base, made.state("a"))
    known = read_told(tmp_path / "s")["version"]
    (tmp_path / "save.py").write_text(f"""
import os, sys
from pathlib import Path
sys.path[:0] = [os.getcwd(), os.getcwd() + "/tests"]
from tests.llm import test_adapter_state_files as own
import llm.adapter_state_files as files
made = own.engine()
made.create_from("a", files.load_state(Path({str(tmp_path)!r}) / "s", made.base), True)
own.step(made, "a", 5)
left = int(sys.argv[1])
def until(function):
    def wrapped(*args, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return function(*args, **options)
    return wrapped
for name in ("save_adapter", "save_file", "write_json", "_move_into_place"):
    setattr(files, name, until(getattr(files, name)))
files.save_state(Path({str(tmp_path)!r}) / "s", made.base, made.state("a"))
""")
    for count in (1, 3):
        ended = run_python([tmp_path / "save.py", count], Path(__file__).parents[2])
        assert ended.returncode == 9, ended.stderr
        assert read_told(tmp_path / "s")["version"] == known
        assert load_state(tmp_path / "s", made.base).step == 3


def test_what_is_damaged_newer_or_of_another_model_is_never_taken_for_none(tmp_path):
    made = trained()
    save_state(tmp_path / "s", made.base, made.state("a"))
    with pytest.raises(ModelError, match="there is no saved adapter"):
        load_state(tmp_path / "t", made.base)
    with pytest.raises(ModelError, match=r"is of the base model t0 \(digest t0:000000000\), not of t0 \(digest t0:1"):
        load_state(tmp_path / "s", engine(1).base)
    content = (tmp_path / "s" / OPTIMIZER).read_bytes()
    (tmp_path / "s" / OPTIMIZER).write_bytes(content[:-10] + bytes(10))
    with pytest.raises(ModelError, match=r"optimizer.safetensors is damaged: it is not what was written. Load another"):
        load_state(tmp_path / "s", made.base)
    (tmp_path / "s" / OPTIMIZER).unlink()
    with pytest.raises(ModelError, match=r"optimizer.safetensors can't be read: No such file"):
        load_state(tmp_path / "s", made.base)
    told = json.loads((tmp_path / "s" / STATE).read_text())
    (tmp_path / "s" / STATE).write_text(json.dumps(told | {"format": 2}))
    with pytest.raises(ModelError, match="has the format 2; this program knows 1: a newer one has written it"):
        load_state(tmp_path / "s", made.base)
    (tmp_path / "s" / STATE).write_text("{")
    with pytest.raises(ModelError, match=r"adapter_state.json can't be read"):
        load_state(tmp_path / "s", made.base)
