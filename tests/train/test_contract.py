"""Names of an author's that are BaseTrainer's own: refused before they take its place unseen."""

import pytest
from step_trainers import HookTrainer, Kit

from train.base_trainer import BaseTrainer
from train.contract import TrainerType
from train.errors import TrainerContractError


@pytest.mark.parametrize(
    "name", ["_after_step", "_end_epoch", "_after_epoch", "training_loop", "session", "stop_request"]
)
def test_a_method_that_the_loop_uses_is_refused_where_the_trainer_is_defined(name):
    told = f"Mine has a {name} of its own, but BaseTrainer's loop uses that name"
    with pytest.raises(TrainerContractError, match=told):
        TrainerType("Mine", (BaseTrainer,), {name: lambda self: None})
    mixin = type("Mixin", (Kit,), {name: lambda self: None})
    with pytest.raises(TrainerContractError, match=told):
        TrainerType("Mine", (mixin, BaseTrainer), {})


@pytest.mark.parametrize("name", ["last_gradient_norm", "stop_request", "training_loop", "_after_epoch"])
def test_an_attribute_that_the_loop_uses_is_refused_where_the_trainer_is_built(tmp_path, name):
    with pytest.raises(TrainerContractError, match=f"HookTrainer has a {name} of its own"):
        HookTrainer(tmp_path, attributes={name: 1.0})


@pytest.mark.parametrize("name", ["record", "run_context"])
def test_what_the_base_class_would_replace_is_refused(tmp_path, name):
    with pytest.raises(TrainerContractError, match=rf"__init__ sets self\.{name}, which BaseTrainer makes"):
        HookTrainer(tmp_path, attributes={name: {}})


@pytest.mark.parametrize(
    "name", ["run", "step", "position", "meter", "saver", "training_steps", "context", "guard", "gradient_norm"]
)
def test_an_author_s_own_names_are_free(tmp_path, name):
    trainer = HookTrainer(tmp_path, attributes={name: "mine"}, epochs=1)
    trainer.train()
    assert getattr(trainer, name) == "mine"


def test_a_trainer_may_say_itself_which_process_is_the_main_one(tmp_path):
    trainer = HookTrainer(tmp_path, attributes={"is_main_process": True}, epochs=1)
    trainer.train()
    assert trainer.is_main_process is True
