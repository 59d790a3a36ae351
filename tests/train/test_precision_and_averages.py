"""Mixed precision, the moving average of weights, recomputed activations, pace of saving, threads."""

import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from config import BaseTrainerConfig, ConfigError
from data.tensor_loader import TensorLoader
from storage.checkpoint_store import CheckpointStore
from train.base_trainer import BaseTrainer, RunOptions
from train.checkpointing.saver import Pace
from train.machine import FlopCounter, cpu_threads, needs_one_thread
from train.steps import EagerStep, StepInput, Update


class Layered(nn.Module):
    """Layers that may forget their activations."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 32), nn.GELU(), nn.Linear(32, 6), nn.Dropout(0.1)) for _ in range(3)
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            rows = rows + layer(rows)
        return rows

    def recomputable_layers(self) -> list[nn.Module]:
        """The layers."""
        return list(self.layers)


def build(trainer: BaseTrainer, config: BaseTrainerConfig, model: nn.Module | None = None) -> None:
    """Do what a trainer's `__init__` does before it calls the base class's."""
    trainer.config = config
    trainer.model = model or nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 6))
    rows = torch.randn(80, 6, generator=torch.Generator().manual_seed(1))
    trainer.train_loader = TensorLoader(rows[:64], config.batch_size, shuffle=True)
    trainer.val_loader = TensorLoader(rows[64:], config.batch_size)
    trainer.optimizer = Adam(trainer.model.parameters(), lr=config.learning_rate)
    trainer.scheduler = ReduceLROnPlateau(trainer.optimizer)
    trainer.init_progress_bar(total=len(trainer.train_loader) * config.epochs)


class SmallTrainer(BaseTrainer):
    """A small autoencoder."""

    def __init__(self, config: BaseTrainerConfig, model: nn.Module | None = None) -> None:
        build(self, config, model)
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def compute_loss(self, batch: torch.Tensor) -> torch.Tensor:
        back = self.model(batch.to(self.device))
        self.dtypes.append(back.dtype)
        return F.mse_loss(back.float(), batch)


def config_of(folder: Path, **settings) -> BaseTrainerConfig:
    usual = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "plot_at_end": False, "saving_share": 1.0}
    return BaseTrainerConfig(artifacts_dir=folder, device="cpu", **(usual | settings))


def run(trainer: BaseTrainer) -> BaseTrainer:
    with trainer.session():
        trainer.train()
    return trainer


# ------------------------------------------------------------------------------------------------------ precision


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_forward_computes_in_the_asked_precision_and_weights_stay(tmp_path, precision, dtype):
    half = SmallTrainer(config_of(tmp_path, precision=precision))
    if precision == "fp16":
        set_scale(half, 2.0**8)  # its first one is so large that a few steps are left out until it fits
    run(half)
    full = run(SmallTrainer(config_of(tmp_path)))
    assert set(half.dtypes) == {dtype}
    assert all(parameter.dtype == torch.float32 for parameter in half.model.parameters())
    assert half.history["train_loss"] == pytest.approx(full.history["train_loss"], rel=0.02)
    assert half.history["train_loss"] != full.history["train_loss"]


def set_scale(trainer: BaseTrainer, scale: float) -> torch.amp.GradScaler:
    """Set the scale of an fp16 run's loss."""
    scaler = trainer.run_context.precision.scaler
    scaler.scale(torch.ones(()))  # makes its tensors
    scaler._scale.fill_(scale)
    return scaler


def test_fp16_leaves_out_a_step_that_overflows_and_lowers_the_scale(tmp_path):
    trainer = SmallTrainer(config_of(tmp_path, precision="fp16", epochs=1))
    scaler = set_scale(trainer, 2.0**40)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.run_context.step(StepInput([next(iter(trainer.train_loader))]))
    assert all(map(torch.equal, before, trainer.model.parameters()))
    assert scaler.get_scale() == 2.0**39
    scaler._scale.fill_(2.0**4)
    trainer.run_context.step(StepInput([next(iter(trainer.train_loader))]))
    assert not any(map(torch.equal, before, trainer.model.parameters()))


def test_the_scale_of_fp16_survives_a_resumption(tmp_path):
    trainer = run(SmallTrainer(config_of(tmp_path, precision="fp16")))
    trainer.run_context.precision.scaler._scale.fill_(128.0)
    trainer.save_checkpoint(3)
    BaseTrainer.options = RunOptions(resume=str(trainer.run_folder.path))
    try:
        resumed = SmallTrainer(config_of(tmp_path, precision="fp16"))
    finally:
        BaseTrainer.options = RunOptions()
    assert resumed.run_context.precision.scaler.get_scale() == 128.0


def test_tf32_without_cuda_is_fp32_and_says_so(tmp_path, caplog):
    tf32 = run(SmallTrainer(config_of(tmp_path, precision="tf32")))
    assert "precision = tf32 needs a CUDA device; on cpu it is fp32" in caplog.text
    assert tf32.history["train_loss"] == run(SmallTrainer(config_of(tmp_path))).history["train_loss"]


class OwnLoopTrainer(BaseTrainer):
    """Steps by itself."""

    def __init__(self, config: BaseTrainerConfig) -> None:
        build(self, config)
        super().__init__()

    compute_loss = SmallTrainer.compute_loss

    def train(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("setting", [{"ema_decay": 0.9}, {"precision": "fp16"}])
def test_what_only_the_base_loop_has_is_refused_for_a_loop_of_ones_own(tmp_path, setting):
    (text,) = [f"{key} = {value}" for key, value in setting.items()]
    with pytest.raises(
        ConfigError, match=f"{text}: OwnLoopTrainer has a train\\(\\) of its own; only the base class's"
    ):
        OwnLoopTrainer(config_of(tmp_path, **setting))


# --------------------------------------------------------------------------------------------------- accumulation


def masked_steps(parts: list[torch.Tensor], masks: list[torch.Tensor], clip: float) -> torch.Tensor:
    """One step over a step input whose loss is a mean over the entries that a mask leaves, in float64."""
    torch.manual_seed(0)
    model = nn.Linear(6, 6).double()
    counts = []

    def forward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        counts.append(batch["mask"].sum())
        return ((model(batch["rows"]) - batch["rows"]).square().mean(1) * batch["mask"]).sum() / counts[-1]

    batches = [{"rows": rows, "mask": mask} for rows, mask in zip(parts, masks, strict=True)]
    step = EagerStep(forward, Update(SGD(model.parameters(), lr=0.5), clip), lambda: counts[-1])
    step(StepInput(batches))
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_accumulation_with_unequal_valid_counts_equals_the_big_batch(clip):
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(23, 6, generator=generator, dtype=torch.float64)
    mask = (torch.rand(23, generator=generator) < 0.6).double()
    cuts = [9, 9, 5]
    split = masked_steps(list(rows.split(cuts)), list(mask.split(cuts)), clip)
    torch.testing.assert_close(split, masked_steps([rows], [mask], clip), rtol=0, atol=1e-12)
    wrong = masked_steps(list(rows.split(cuts)), [part * 0 + 1 for part in mask.split(cuts)], clip)
    assert not torch.allclose(split, wrong, rtol=0, atol=1e-6)


class CountingTrainer(BaseTrainer):
    """Its loss is a mean over rows whose first entry is positive."""

    def __init__(self, config: BaseTrainerConfig) -> None:
        build(self, config)
        super().__init__()

    def compute_loss(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the mean over the valid rows."""
        valid = (batch[:, 0] > 0).float()
        self._set_loss_count(valid.sum())
        return ((self.model(batch) - batch).square().mean(1) * valid).sum() / valid.sum().clamp(min=1)


def test_the_epochs_loss_is_the_mean_over_what_the_hook_counted(tmp_path):
    trainer = CountingTrainer(config_of(tmp_path, epochs=1, learning_rate=1e-30, batch_size=7))
    run(trainer)
    rows = trainer.val_loader.tensors[""]
    valid = rows[:, 0] > 0
    expected = (trainer.model(rows) - rows).square().mean(1)[valid].mean()
    assert trainer.history["val_loss"][0] == pytest.approx(expected.item(), rel=1e-6)


# ------------------------------------------------------------------------------------------------ averaged weights


def test_the_average_follows_the_weights_and_is_what_is_validated_and_saved(tmp_path):
    trainer = SmallTrainer(config_of(tmp_path, ema_decay=0.8, epochs=2))
    followed = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    step = trainer.run_context.step.step

    def watched(step_input: StepInput) -> None:
        step(step_input)
        for mean, parameter in zip(followed, trainer.model.parameters(), strict=True):
            mean.mul_(0.8).add_(parameter.detach(), alpha=0.2)

    trainer.run_context.step.step = watched
    run(trainer)
    saved = load_file(trainer.get_run_file_path("model.safetensors"))
    for name, mean in zip(dict(trainer.model.named_parameters()), followed, strict=True):
        torch.testing.assert_close(saved[name], mean, rtol=1e-5, atol=1e-6)
    rows = trainer.val_loader.tensors[""]
    trainer.model.load_state_dict(saved)
    loss = F.mse_loss(trainer.model.eval()(rows), rows)
    assert trainer.history["val_loss"][-1] == pytest.approx(float(loss), rel=1e-5)


def test_a_resumed_run_has_the_same_average(tmp_path):
    whole = run(SmallTrainer(config_of(tmp_path / "a", ema_decay=0.9, epochs=4)))
    first = run(SmallTrainer(config_of(tmp_path / "b", ema_decay=0.9, epochs=2)))
    BaseTrainer.options = RunOptions(resume=str(first.run_folder.path))
    try:
        resumed = SmallTrainer(config_of(tmp_path / "b", ema_decay=0.9, epochs=4))
    finally:
        BaseTrainer.options = RunOptions()
    run(resumed)
    assert all(map(torch.equal, whole.run_context.average.averages, resumed.run_context.average.averages))
    assert whole.history["val_loss"] == resumed.history["val_loss"]


# --------------------------------------------------------------------------------------- recomputed activations


def saved_bytes(trainer: BaseTrainer) -> int:
    """Count what a forward pass keeps for backward."""
    kept = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    trainer.model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trainer.compute_loss(next(iter(trainer.train_loader)))
    return sum(kept.values())


def test_recomputed_activations_save_memory_and_change_nothing(tmp_path):
    kept = SmallTrainer(config_of(tmp_path), model=seeded(Layered))
    forgotten = SmallTrainer(config_of(tmp_path, recompute_activations=True), model=seeded(Layered))
    assert saved_bytes(forgotten) < saved_bytes(kept) / 2
    for trainer in (kept, forgotten):
        torch.manual_seed(5)  # of dropout
        run(trainer)
    assert kept.history["train_loss"] == forgotten.history["train_loss"]
    assert all(map(torch.equal, kept.model.parameters(), forgotten.model.parameters()))


def seeded(model: type) -> nn.Module:
    """Build a model with the same weights each time."""
    torch.manual_seed(3)
    return model()


def test_a_model_that_names_no_layers_says_what_it_lacks(tmp_path):
    with pytest.raises(ConfigError, match="Sequential has no recomputable_layers"):
        SmallTrainer(config_of(tmp_path, recompute_activations=True))


# ----------------------------------------------------------------------------------------------- pace and threads


def test_pace_waits_in_proportion_to_what_it_cost(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace(0.1)
    assert pace.due
    with pace.spending():
        now[0] += 2.0
    assert not pace.due
    now[0] += 17.9
    assert not pace.due
    now[0] += 0.2
    assert pace.due, "2 s of 20 are a tenth"
    always = Pace(1.0)
    with always.spending():
        now[0] += 5.0
    assert always.due


def test_what_waits_is_written_at_the_end_as_of_its_own_epoch(tmp_path, monkeypatch):
    """With a clock that stands still nothing but the first epoch is due; the rest waits in memory."""
    at_once = run(SmallTrainer(config_of(tmp_path / "a", epochs=6)))
    monkeypatch.setattr(Pace, "due", property(lambda pace: False))
    waiting = SmallTrainer(config_of(tmp_path / "b", epochs=6, saving_share=0.01))
    writes = []
    save = CheckpointStore.save
    monkeypatch.setattr(
        CheckpointStore, "save", lambda self, epoch, *rest: writes.append(epoch) or save(self, epoch, *rest)
    )
    run(waiting)
    assert writes == [6]
    one, other = (trainer.run_context.checkpoints.load_newest()[0] for trainer in (at_once, waiting))
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    assert one.state["record"]["history"] == other.state["record"]["history"]
    for name, tensor in load_file(at_once.get_run_file_path("model.safetensors")).items():
        assert torch.equal(tensor, load_file(waiting.get_run_file_path("model.safetensors"))[name])


def test_an_interrupted_run_goes_on_after_the_last_epoch_although_its_checkpoint_was_not_due(tmp_path, monkeypatch):
    whole = run(SmallTrainer(config_of(tmp_path / "a", epochs=5)))
    monkeypatch.setattr(Pace, "due", property(lambda pace: False))
    trainer = SmallTrainer(config_of(tmp_path / "b", epochs=5, saving_share=0.01))
    validate = trainer.validate
    trainer.validate = lambda: interrupt() if trainer.record.progress.epoch == 3 else validate()
    with pytest.raises(KeyboardInterrupt):
        run(trainer)
    assert trainer.run_context.checkpoints.load_newest()[1].name == "epoch-00002"
    BaseTrainer.options = RunOptions(resume=str(trainer.run_folder.path))
    try:
        resumed = SmallTrainer(config_of(tmp_path / "b", epochs=5))
    finally:
        BaseTrainer.options = RunOptions()
    run(resumed)
    assert resumed.history["val_loss"] == whole.history["val_loss"]
    assert all(map(torch.equal, resumed.model.parameters(), whole.model.parameters()))


def interrupt() -> None:
    raise KeyboardInterrupt


def test_threads_are_what_is_asked_for_and_back_afterwards():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for wanted, expected in ((0, 2), (1, 1), (3, 3)):
            with cpu_threads(wanted):
                assert torch.get_num_threads() == expected
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("step", "operator", "expected"),
    [(1e6, 1e9, True), (1e9, 1e9, False), (1e9, 1e5, True), (None, None, False)],
)
def test_one_thread_is_for_small_steps_and_for_many_small_operations(step, operator, expected):
    assert needs_one_thread(step, operator) is expected


def test_the_survey_counts_a_linear_layer_and_attention():
    linear, rows = nn.Linear(6, 16), torch.randn(4, 6)
    with torch.no_grad(), FlopCounter() as counter:
        linear(rows)
    operators, flops = counter.of(linear, 4)
    assert flops == max(2 * 6 * 16, 2 * (6 * 16 + 16))
    assert operators in (1, 2), "addmm, and perhaps the transposition of the weight"
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    with torch.no_grad(), FlopCounter() as counter:
        layer(torch.randn(4, 10, 16))
    assert counter.of(layer, 4)[1] >= 10 * 2 * (4 * 16 * 16 + 2 * 16 * 32)
