"""The contestants of bench/speed.py: loops written by hand, Menagerie, Lightning."""

import ctypes
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from speed_work import DECAY, LEARNING_RATE, PLATEAU, Clock, Outcome, Work

_PATIENCE = 1000  # armed, never reached


class _Patience:
    """Early stopping in four lines, for the loops written by hand."""

    def __init__(self) -> None:
        self.best, self.bad = math.inf, 0

    def stop(self, val_loss: float) -> bool:
        self.bad = 0 if val_loss < self.best else self.bad + 1
        self.best = min(self.best, val_loss)
        return self.bad >= _PATIENCE


def bare(work: Work, clock: Clock, device: torch.device, folder: Path) -> Outcome:
    """The loop most people write: DataLoader, zero_grad, backward, step, `.item()`."""
    train, val = work.loaders(pin=device.type == "cuda")
    net = work.net().to(device)
    optimizer = work.optimizer(net.parameters())
    plateau, patience = work.plateau(optimizer), _Patience()
    steps = 0
    clock.begin()
    for _ in range(work.size.epochs):
        net.train()
        train_sum = 0.0
        for batch in train:
            x, y = batch[0].to(device, non_blocking=True), batch[-1].to(device, non_blocking=True)
            optimizer.zero_grad()
            loss = work.loss(net(x), y)
            loss.backward()
            if work.size.clip:
                torch.nn.utils.clip_grad_norm_(net.parameters(), work.size.clip)
            optimizer.step()
            train_sum += loss.item() * len(x)  # host-device synchronisation, as most loops have it
            steps += 1
        net.eval()
        val_sum = 0.0
        with torch.no_grad():
            for batch in val:
                x, y = batch[0].to(device, non_blocking=True), batch[-1].to(device, non_blocking=True)
                val_sum += work.loss(net(x), y).item() * len(x)  # host-device synchronisation
        val_loss = val_sum / len(work.val[0])
        plateau.step(val_loss)
        clock.epoch(train_sum / len(work.train[0]), val_loss, optimizer.param_groups[0]["lr"])
        if patience.stop(val_loss):
            break
    clock.finish()
    return Outcome(net, steps)


def tuned(work: Work, clock: Clock, device: torch.device, folder: Path) -> Outcome:
    """The best plain loop without compiling: data at hand, one gather an epoch, one kernel for clip and Adam."""
    if device.type == "cpu":
        _keep_freed_memory()
        if len(work.size.widths) == 3 and work.size.kind == "autoencoder":
            torch.set_num_threads(1)  # two threads wait for one another longer than they compute
    net = work.net().to(device)
    parameters = list(net.parameters())
    optimizer = work.optimizer(parameters, fused=True)
    plateau, patience = work.plateau(optimizer), _Patience()
    rows = [part.to(device) for part in work.train[: 2 if work.has_targets else 1]]
    held_out = [part.to(device).split(work.size.batch) for part in work.val]
    steps = 0
    clock.begin()
    for _ in range(work.size.epochs):
        net.train()
        train_sum = torch.zeros((), device=device)
        order = torch.randperm(len(rows[0])).to(device)
        batches = [part.index_select(0, order).split(work.size.batch) for part in rows]
        for x, y in zip(batches[0], batches[-1], strict=True):
            optimizer.zero_grad()
            loss = work.loss(net(x), y)
            loss.backward()
            if work.size.clip:  # the fused kernel divides by grad_scale on its way: no pass of its own
                norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
                optimizer.grad_scale = ((norm + 1e-6) / work.size.clip).clamp(min=1.0)
            optimizer.step()
            train_sum.add_(loss.detach(), alpha=len(x))
            steps += 1
        net.eval()
        with torch.inference_mode():
            sums = [work.loss(net(x), y) * len(x) for x, y in zip(*held_out, strict=True)]
        val_loss = torch.stack(sums).sum().item() / len(work.val[0])  # host-device synchronisation, one an epoch
        plateau.step(val_loss)
        clock.epoch(train_sum.item() / len(rows[0]), val_loss, optimizer.param_groups[0]["lr"])
        if patience.stop(val_loss):
            break
    clock.finish()
    return Outcome(net, steps)


def _keep_freed_memory() -> None:
    """Let glibc keep large blocks that are freed; mapping them anew costs more than filling them."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def menagerie(form: str | None, work: Work, clock: Clock, device: torch.device, folder: Path) -> Outcome:
    """An ordinary trainer with all defaults; only the run folder is elsewhere and no plots are drawn.

    Args:
        form: the config's `step`; None leaves the default.
    """
    from config import ConfigParser
    from config.base_trainer_config import BaseTrainerConfig
    from data.tensor_loader import TensorLoader
    from train.base_trainer import BaseTrainer

    @dataclass
    class SpeedTrainerConfig(BaseTrainerConfig):
        """Of every trainer; it has none of its own."""

    class SpeedTrainer(BaseTrainer):
        """A trainer as a researcher writes one, with a clock."""

        def __init__(self) -> None:
            self.config = ConfigParser.get(SpeedTrainerConfig)
            self.model = work.net()
            train, val = ({"x": x, "y": y} if work.has_targets else x for x, y in (work.train, work.val))
            self.train_loader = TensorLoader(train, self.config.batch_size, shuffle=True, seed=self.config.seed)
            self.val_loader = TensorLoader(val, self.config.batch_size)
            self.optimizer = work.optimizer(self.model.parameters())
            self.scheduler = work.plateau(self.optimizer)
            self.init_progress_bar(total=len(self.train_loader) * self.config.epochs, desc="Training")
            super().__init__()

        def compute_loss(self, batch: Any) -> torch.Tensor:
            x, y = (batch["x"], batch["y"]) if work.has_targets else (batch, batch)
            x, y = x.to(self.device), y.to(self.device)
            return work.loss(self.model(x), y)

        def save_checkpoint(self, epoch: int, is_best: bool = False) -> None:
            """What an epoch ends with: the clock stands behind it."""
            super().save_checkpoint(epoch, is_best)
            clock.epoch(*(self.history[key][-1] for key in ("train_loss", "val_loss", "learning_rate")))
            if epoch == self.config.epochs:  # the run puts the best weights back, which may be an earlier epoch's
                final.update({name: value.detach().clone() for name, value in self.model.state_dict().items()})

    final: dict[str, torch.Tensor] = {}
    ConfigParser.use(overrides=_settings(work, device, folder, form), section="SpeedTrainer")
    trainer = SpeedTrainer()
    clock.begin()
    trainer.train()
    clock.finish()
    trainer.model.load_state_dict(final)
    step = trainer.run_context.step
    form = step.name if step.fast or step.name == "eager" else f"not {step.name}"  # a form that fell back is named so
    return Outcome(trainer.model, trainer.record.progress.step, form)


def _settings(work: Work, device: torch.device, folder: Path, form: str | None) -> dict[str, Any]:
    """What the workload says, the folder and the form; all else is the default."""
    settings = {
        "epochs": work.size.epochs,
        "batch_size": work.size.batch,
        "learning_rate": LEARNING_RATE,
        "weight_decay": DECAY if work.size.kind == "ranker" else 0.0,
        "gradient_clip_value": work.size.clip,
        "lr_decay_factor": PLATEAU["factor"],
        "lr_patience": PLATEAU["patience"],
        "device": device.type,
        "artifacts_dir": str(folder / "artifacts"),
        "plot_at_end": "off",
    }
    return settings if form is None else settings | {"step": form}


def lightning(lean: bool, work: Work, clock: Clock, device: torch.device, folder: Path) -> Outcome:
    """Lightning's Trainer as its documentation shows it.

    Args:
        lean: without progress bar, logger, checkpoints, model summary and sanity check.
    """
    import lightning as pl
    from lightning.pytorch.callbacks import Callback, EarlyStopping
    from lightning.pytorch.loggers import CSVLogger

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = work.net()

        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            loss = work.loss(self.net(batch[0]), batch[-1])
            self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)
            return loss

        def validation_step(self, batch: Any, number: int) -> None:
            self.log("val_loss", work.loss(self.net(batch[0]), batch[-1]), prog_bar=True)

        def configure_optimizers(self) -> dict[str, Any]:
            optimizer = work.optimizer(self.parameters())
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": work.plateau(optimizer), "monitor": "val_loss"},
            }

    class Marks(Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            seen = trainer.callback_metrics
            losses = float(seen["train_loss"]), float(seen["val_loss"])  # host-device synchronisation
            clock.epoch(*losses, trainer.optimizers[0].param_groups[0]["lr"])

    off = ("progress_bar", "checkpointing", "model_summary")
    less = {f"enable_{name}": False for name in off} | {"num_sanity_val_steps": 0} if lean else {}
    train, val = work.loaders(pin=device.type == "cuda")
    module = Module()
    trainer = pl.Trainer(
        max_epochs=work.size.epochs,
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=1,
        gradient_clip_val=work.size.clip or None,
        callbacks=[EarlyStopping("val_loss", patience=_PATIENCE), Marks()],
        default_root_dir=folder,
        logger=False if lean else CSVLogger(folder),
        **less,
    )
    clock.begin()
    trainer.fit(module, train, val)
    clock.finish()
    return Outcome(module.net.to(device), trainer.global_step)
