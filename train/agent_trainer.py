"""Trains an agent, a function over the OpenAI client, by its reward: `python train.py Agent agent=my_agent.py:play`."""

import copy
import dataclasses
import hashlib
import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import torch
from beautilog import logger
from torch import Tensor, nn

from config import ConfigError, ConfigParser
from config.agent_trainer_config import AgentTrainerConfig
from constants.counting import counted
from data.policy_batches import PolicyBatch, PolicyRow, pack_policy_rows
from data.text_preview import marked_rows, template_lines
from data.token_row import TokenRow
from llm.base_model import BaseModel
from llm.engine import version_of
from model.adapted_causal_lm import OutsideOfState, logprobs_where
from model.lora import LoraAdapter
from model.token_losses import kl_k1
from storage.agent_transcripts import TRANSCRIPTS
from train.agents.agent_elsewhere import Agent, ask_agent
from train.agents.agent_function import AgentFunctionError, find_agent
from train.agents.agent_processes import FORKS, memory_of_machine
from train.agents.comparison import compared, comparison_lines, transcripts
from train.agents.credit import Credit, CreditSettings
from train.agents.flight import FlightLimits
from train.agents.kept_transcripts import keep_transcripts, transcripts_of
from train.agents.live_view import LiveView
from train.agents.policy_loss import PolicyLoss
from train.agents.quiet import OUTPUT
from train.agents.rollout import Rollout, RolloutPlan, SampledRow
from train.agents.rollout_journal import RolloutJournal, remove_journals
from train.agents.rollout_loader import RolloutLoader, RolloutSettings, ValidationRollouts
from train.agents.rollout_runner import RolloutRunner, RunnerSettings
from train.agents.rollout_summary import in_line, trouble_in
from train.agents.sampled_policy import SampledPolicy
from train.agents.tasks import plain_tasks, split_tasks, text_of_tasks
from train.agents.watch import signs_of_gaming
from train.base_trainer import BaseTrainer
from train.language.optimization import adamw, warmup_then_cosine
from train.language.samples import write_samples
from train.language.token_clock import TokenClock
from train.language.trained_model import TrainedModel
from train.machine import peak_memory
from train.process_group import process_group

_FEW_TOKENS = 4096  # of rows that go through the model together where no gradients are wanted
_JOURNALS = "rollouts"  # folder in the run's, of what is known of rollouts that a resumed run may ask for
_MEASURED = {"kl", "ratio", "sampler_gap"}
_GAP = 0.05  # mean distance of logprobs from which on sampler and trainer are not the same policy


class AgentTrainer(BaseTrainer):
    """Trains an agent, an ordinary function over the OpenAI client, by the reward that it returns.

    An epoch begins with rollouts: the agent does some tasks, several times each, with the model as it is. Rewards are
    compared within each task, and the model learns from the tokens that it sampled.
    """

    config: AgentTrainerConfig
    train_loader: RolloutLoader
    val_loader: ValidationRollouts

    def __init__(self) -> None:
        config = self.config = ConfigParser.get(AgentTrainerConfig)
        _require_packages()
        self._policy_loss = OutsideOfState(_policy_loss(config))
        _require_together(config)
        try:
            agent = _agent(config)
        except AgentFunctionError as error:
            raise ConfigError([str(error)]) from error
        if not process_group().is_single_process:
            raise ConfigError(["AgentTrainer runs in one process: start it without torchrun"])
        tasks, val_tasks = split_tasks(agent, config.tasks, config.val_tasks, config.val_share, config.seed)
        self._tasks = OutsideOfState((tasks, val_tasks))
        self.language = TrainedModel(config, self.device)
        self.model = self.language.module
        self._start = OutsideOfState(self._as_it_is())
        processes = config.rollouts_in == "processes" and FORKS
        if processes and agent.takes_client and not plain_tasks([*tasks, *val_tasks]):
            logger.warning(
                "agents play in threads, since tasks are no plain data (None, numbers, texts, lists, dicts with texts "
                "as keys), which alone can be handed to processes: a crash of the agent would end the run"
            )
            processes = False
        self._runner = OutsideOfState(RolloutRunner(agent, _runner_settings(config, processes)))
        _require_enough(config, len(tasks))
        settings = self._rollout_settings()
        credit = Credit(_credit_settings(config, self.options.dry_run), self._start_logprobs)
        self.train_loader = RolloutLoader(len(tasks), self._train_rollouts, settings, credit, self._keep_transcripts)
        self.val_loader = ValidationRollouts(len(val_tasks), config.val_samples, self._val_rollouts, settings)
        self.optimizer = adamw(config, self.model)
        self.scheduler = warmup_then_cosine(config, self.optimizer, len(self.train_loader))
        self.init_progress_bar(total=len(self.train_loader) * config.epochs, desc="Training the agent")
        self.clock = TokenClock()
        self._warned = OutsideOfState(set[str]())
        super().__init__()
        self.record.in_line = in_line
        self.language.write_record(self.run_folder.path)
        for line in [*self.language.lines(), self._told(len(tasks), len(val_tasks))]:
            logger.info(line)

    # ---------------------------------------------------------------------------------------------------- the loss

    def compute_loss(self, batch: PolicyBatch) -> Tensor:
        """Return the policy's loss over the sampled tokens of rollouts; in validation, minus their mean reward."""
        self._collect_numbers(batch)
        if not self.model.training:
            return self._val_loss(batch)
        self._set_loss_count(torch.tensor(batch.total_weight))
        if batch.rows is None:
            return _nothing_to_learn(next(self.model.parameters()))
        if self.run_context.in_session:
            self.clock.note(len(batch.tokens))
        logprobs = self.language.logprobs(batch.token_batch(), self.model)
        change = logprobs.detach() - batch.old_logprobs.to(self.device)
        self._collect_batch_metrics({"ratio": change.exp().mean()}, len(batch.places))
        if batch.fresh:
            self._collect_batch_metrics({"sampler_gap": change[: batch.fresh].abs().mean()}, batch.fresh)
        return self._policy_loss.held(batch, logprobs)

    def _val_loss(self, batch: PolicyBatch) -> Tensor:
        if batch.rows is not None:
            logprobs, start = self.language.logprobs(batch.token_batch()), self._start_logprobs_of(batch)
            count, old = len(batch.places), batch.old_logprobs.to(self.device)
            self._collect_batch_metrics({"kl": kl_k1(logprobs, start).mean()}, count)
            self._collect_batch_metrics({"sampler_gap": (logprobs - old).abs().mean()}, count)
        self._set_loss_count(batch.rollouts)
        return torch.tensor(-batch.reward, device=self.device)

    def _collect_numbers(self, batch: PolicyBatch) -> None:
        """Note what is told of the rollouts; what was told before and is not now is no number, so that lists agree."""
        if not batch.numbers:
            return
        for name, (value, count) in batch.numbers.items():
            self._collect_batch_metrics({name: value}, int(count))
        training = self.model.training
        split = "train_" if training else "val_"
        before = {name.removeprefix(split) for name in self.history if name.startswith(split)} - {"loss", "epoch"}
        before -= _MEASURED - ({"kl"} if training else set())  # by the loss, of what is learned from
        for name in sorted(before - batch.numbers.keys()):
            self._collect_batch_metrics({name: math.nan}, 1)

    def validate(self) -> float:
        """Return minus the mean reward of the validation tasks, with the same random numbers each time."""
        self.clock.pause()
        val_loss = super().validate()
        seen: dict[str, list[float]] = {name: list(values) for name, values in self.history.items()}
        for name in ("val_reward", "val_length", "val_entropy", "val_sampler_gap"):
            value = self.record.pending(name)
            seen.setdefault(name, []).extend([] if value is None else [value])
        found = signs_of_gaming(seen)
        if seen["val_sampler_gap"] and seen["val_sampler_gap"][-1] > _GAP:
            found["gap"] = (
                f"logprobs of the sampler and of the trainer differ by {seen['val_sampler_gap'][-1]:.3g} a token on "
                "average: what is learned from is not what was sampled"
            )
        for sign in found.keys() - self._warned.held:
            self._warned.held.add(sign)
            logger.warning(found[sign])
        return val_loss

    # ---------------------------------------------------------------------------------------------------- rollouts

    def _train_rollouts(self, plans: Sequence[RolloutPlan]) -> list[Rollout]:
        self._remove_old_journals()
        name = f"train-{plans[0].seed}-{self._epoch():05d}"  # each of the rounds of an epoch has a journal of its own
        return self._rollouts(plans, self._tasks.held[0], self._now(), name)

    def _keep_transcripts(self, made: Sequence[Rollout]) -> None:
        if self.run_context.in_session:
            credit, tokenizer = self.train_loader.credit, self.language.base.tokenizer
            kept = transcripts_of(made, self._epoch(), credit, tokenizer, self.config.sample_count)
            keep_transcripts(self.get_run_file_path(TRANSCRIPTS), kept)

    def _val_rollouts(self, plans: Sequence[RolloutPlan]) -> list[Rollout]:
        return self._rollouts(plans, self._tasks.held[1], self._now(), f"val-{self._epoch():05d}")

    def _rollouts(
        self, plans: Sequence[RolloutPlan], tasks: Sequence[object], policy: SampledPolicy, name: str
    ) -> list[Rollout]:
        """Make rollouts; those that were made before the run was interrupted are taken from their journal.

        Args:
            plans: what is to be made.
            tasks: the tasks that they number.
            policy: the weights.
            name: name of the journal; `-00003` at its end says that it is of the third epoch.
        """
        self.clock.pause()
        training = self.model.training
        self.model.eval()
        runner = self._runner.held
        runner.print_to(None if self.options.dry_run else self.get_run_file_path(OUTPUT))
        path = self.get_run_file_path(f"{_JOURNALS}/{name}.journal") if self.run_context.in_session else None
        journal = RolloutJournal(path, self._facts(plans, policy) if path is not None else {})
        self.run_context.work_kept |= path is not None
        what = {"train": f"epoch {self._epoch()}", "val": "validation"}.get(
            name.partition("-")[0], f"validation {name}"
        )
        view = LiveView(self.progress_bar, what, len(plans), self.history, self.config.success_reward)

        def look(done: Sequence[Rollout]) -> None:
            view.look(done)
            if self.run_context.in_session:  # leave where somebody wants the run to stop
                self.stop_request.obey()

        try:
            rollouts = runner.run(plans, tasks, policy, look, journal)
        finally:
            view.close()
            self.model.train(training)
        for rollout in rollouts:
            if rollout.reward is None and rollout.turns:
                rollout.reward = self.config.failed_reward
        if path is not None and trouble_in(rollouts).hopeless:  # the run ends; what was amiss may be mended by then
            path.unlink(missing_ok=True)
        return rollouts

    def _facts(self, plans: Sequence[RolloutPlan], policy: SampledPolicy) -> dict[str, Any]:
        """Return what rollouts follow from. A host-device synchronisation where all weights are trained."""
        weights = [] if policy.adapter is not None else list(policy.base.model.parameters())
        sums = torch.stack([each.detach().double().sum() for each in weights]) if weights else torch.zeros(0)
        whole = hashlib.sha256(repr((sums.tolist(), [dataclasses.astuple(plan) for plan in plans])).encode())
        runner = self._runner.held
        asked = runner.settings
        settings = (runner.lanes, asked.lockstep, asked.temperature, asked.max_tokens, asked.limits.turns)
        whole.update(repr((settings, self._digest(), torch.get_num_threads())).encode())
        return {"version": policy.version, "digest": whole.hexdigest()}

    def _epoch(self) -> int:
        """Return the number of the epoch at hand, 1 for the first."""
        return self.record.progress.epoch + 1

    def _remove_old_journals(self) -> None:
        """Remove journals of epochs that no checkpoint goes back to."""
        if not self.run_context.in_session:
            return
        folder = self.run_folder.path / _JOURNALS
        first = max(self.run_context.checkpoints.epochs(), default=0)  # epochs finished by the newest checkpoint
        remove_journals(folder, [path for path in folder.glob("*-*.journal") if int(path.stem[-5:]) > first])

    def _now(self) -> SampledPolicy:
        """Return the weights as they are now, which nobody changes before the rollouts are made."""
        adapter, step = self.language.adapter, self.record.progress.step
        version = f"step-{step}" if adapter is None else version_of(self.language.base.digest, adapter)
        return self._policy(self.language.base, None if adapter is None else adapter.sharing(), version)

    def _policy(self, base: BaseModel, adapter: LoraAdapter | None, version: str) -> SampledPolicy:
        return SampledPolicy(base, self.language.renderer, adapter, version)

    def preview(self, count: int, colour: bool) -> list[str]:
        """Play some rollouts of the first epoch, and show their rows as they would be trained on.

        Args:
            count: number of rollouts.
            colour: mark what is trained on by colour; else by [brackets].
        """
        rows, told = [], []
        for rollout in self._train_rollouts(self.train_loader.plans()[:count]):
            place = f"task {rollout.task + 1}, reward {'none' if rollout.reward is None else f'{rollout.reward:.4g}'}"
            rows += [TokenRow(row.ids, row.sampled.float(), place) for row in rollout.rows]
            told += [f"{place}: {rollout.told}"] if rollout.told else []
        renderer = self.language.renderer
        return [*told, *template_lines(renderer), *marked_rows(rows, renderer, colour)]

    # ---------------------------------------------------------------------------------------------------- the start

    def _as_it_is(self) -> tuple[BaseModel, LoraAdapter | None]:
        """Return the weights as training begins: a new adapter changes nothing, so the model without it."""
        base, adapter = self.language.base, self.language.adapter
        if adapter is None:
            return dataclasses.replace(base, model=copy.deepcopy(base.model).requires_grad_(False)), None
        return base, adapter.snapshot() if self.config.adapter is not None else None

    @torch.no_grad()
    def _start_logprobs_of(self, batch: PolicyBatch) -> Tensor:
        assert batch.rows is not None
        base, adapter = self._start.held
        at = [part.to(self.device) for part in (batch.tokens, batch.targets, batch.places)]
        with torch.autocast(self.device.type, enabled=False):
            return logprobs_where(base.model, at[0], batch.rows, at[1], at[2], adapter)

    def _start_logprobs(self, rows: Sequence[SampledRow]) -> list[Tensor]:
        """Return of each row the log-probabilities of its sampled ids as training began; 0 for the others."""
        found = []
        for some in _by_length(rows, _FEW_TOKENS):
            policy = [PolicyRow(row.ids, row.sampled, row.logprobs, torch.zeros(len(row.ids))) for row in some]
            values = self._start_logprobs_of(pack_policy_rows(policy, len(policy))).cpu()
            for row in some:
                mine, values = values[: int(row.sampled.sum())], values[int(row.sampled.sum()) :]
                found.append(torch.zeros(len(row.ids)).masked_scatter(row.sampled, mine))
        return found

    # ---------------------------------------------------------------------------------------------------- the state

    def get_extra_state(self) -> dict[str, Any]:
        """Return which model it is, and the rollouts of an epoch whose steps are not all done."""
        rollouts = self.train_loader.state_dict(inside=self.run_context.position.steps > 0)
        state = self.language.state() | {"tasks": self._digest()}
        return state | ({"rollouts": rollouts} if rollouts else {})

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on with the rollouts of the epoch at hand.

        Raises:
            ResumeError: the base model is another than the run's.
        """
        self.language.require(state)
        if state.get("tasks", self._digest()) != self._digest():
            logger.warning("the tasks, or the agent's file, are others than when the run began: it goes on with these")
        self.train_loader.load_state_dict(state.get("rollouts", {}))

    def _digest(self) -> str:
        """Return a digest of what the agent does: its file, and its tasks."""
        whole = hashlib.sha256(self._runner.held.agent.source())
        for tasks in self._tasks.held:
            whole.update(text_of_tasks(tasks).encode())
        return whole.hexdigest()

    # ---------------------------------------------------------------------------------------------------- the end

    def after_training(self) -> None:
        """Write the model, and compare it with its start on the validation tasks, with the same random numbers."""
        self.results["tokens_per_second"] = self.clock.rate()
        self.results["peak_memory_bytes"] = peak_memory(self.device)
        facts = {"agent": self.config.agent, "run": self.run_folder.id}
        self.language.export(self.get_run_file_path, facts)
        plans, tasks = self.val_loader.plans(), self._tasks.held[1]
        before = self._rollouts(plans, tasks, self._policy(*self._start.held, "start"), "before")
        after = self._rollouts(plans, tasks, self._now(), "after")
        change = compared(before, after, self.config.success_reward)
        self.results |= change
        for line in comparison_lines(change):
            logger.info(line)
        count = min(self.config.sample_count, len(plans))
        samples = transcripts(self.language.base.tokenizer, before[:count], after[:count])
        write_samples(self.language, self.get_run_file_path, samples)
        remove_journals(self.run_folder.path / _JOURNALS)

    # ---------------------------------------------------------------------------------------------------- its parts

    def _rollout_settings(self) -> RolloutSettings:
        config = self.config
        return RolloutSettings(
            group_size=config.group_size,
            tasks_per_epoch=config.tasks_per_epoch,
            curriculum=config.curriculum,
            sampling_rounds=config.sampling_rounds if config.dynamic_sampling else 1,
            steps=config.steps_per_epoch,
            accumulation=config.accumulation_steps,
            max_steps_off_policy=config.max_steps_off_policy,
            seed=config.seed,
            success=config.success_reward,
            probing=self.options.dry_run,
        )

    def _told(self, train: int, val: int) -> str:
        config = self.config
        drawn = min(config.tasks_per_epoch or train, train)
        how = "in waves" if config.lockstep else "as they come"
        runner = self._runner.held
        if not runner.agent.takes_client:
            how += f"; it runs in {counted(runner.lanes, 'process')} of its own"
        return (
            f"agent {config.agent}: {counted(train, 'task')} and {val} to validate with; an epoch has "
            f"{counted(drawn * config.group_size, 'rollout')}, {config.group_size} a task, sampled {how}"
        )


class _NothingToLearn(torch.autograd.Function):
    """A loss of 0 that leaves the parameters without a gradient: an optimizer then makes no step, not one of 0."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor) -> Tensor:
        return anchor.new_zeros(())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> None:
        return None


def _nothing_to_learn(anchor: nn.Parameter) -> Tensor:
    return _NothingToLearn.apply(anchor)


def _agent(config: AgentTrainerConfig) -> Agent:
    if config.agent_python is None:
        return find_agent(config.agent)
    return ask_agent(config.agent, config.agent_python, with_tasks=config.tasks is None)


def _require_packages() -> None:
    missing = [name for name in ("openai", "starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError([f"training agents needs {', '.join(missing)}: pip install -r requirements-language.txt"])


def _policy_loss(config: AgentTrainerConfig) -> PolicyLoss:
    """Return the loss.

    Raises:
        ConfigError: `clip` is not for this loss, or no range.
    """
    try:
        return PolicyLoss(config.loss, config.clip)
    except ValueError as error:
        told = str(error)
        raise ConfigError([told if told.startswith("clip =") else f"clip: {told}"]) from error


def _credit_settings(config: AgentTrainerConfig, probing: bool) -> CreditSettings:
    return CreditSettings(
        group_size=config.group_size,
        advantage=config.advantage,
        average=config.average,
        average_length=config.average_length or config.max_tokens or 1,
        train_cut_off=config.train_cut_off,
        overlong_length=config.overlong_length,
        overlong_buffer=config.overlong_buffer,
        overlong_penalty=config.overlong_penalty,
        kl_weight=config.kl_weight,
        skip_flat=config.dynamic_sampling,
        probing=probing,
    )


def _require_together(config: AgentTrainerConfig) -> None:
    """Refuse settings that don't go together.

    Raises:
        ConfigError: each that doesn't.
    """
    wrong = []
    if config.average == "constant" and not (config.average_length or config.max_tokens):
        wrong.append("average = constant divides by average_length, or by max_tokens, and both are 0: give one of them")
    if config.average_length and config.average != "constant":
        wrong.append(f"average_length is for average = constant; average = {config.average} does without")
    if config.overlong_buffer > config.overlong_length:
        wrong.append(
            f"overlong_buffer = {config.overlong_buffer} is more than overlong_length = {config.overlong_length}: the "
            "penalty begins so many tokens before that length"
        )
    if config.overlong_penalty != 1 and not config.overlong_length:
        wrong.append("overlong_penalty is for rollouts of overlong_length tokens or more, which is 0: give it too")
    if config.dynamic_sampling and config.advantage == "batch":
        wrong.append(
            "dynamic_sampling = on leaves out tasks whose rollouts have one reward, from which advantage = batch "
            "learns too: take one of the two"
        )
    oldest = config.steps_per_epoch - 1
    if 0 < config.max_steps_off_policy < oldest:
        wrong.append(
            f"max_steps_off_policy = {config.max_steps_off_policy}: an epoch's last step is {counted(oldest, 'step')} "
            f"after its rollouts. Give at least {oldest}, or a smaller steps_per_epoch than {config.steps_per_epoch}"
        )
    if wrong:
        raise ConfigError(wrong)


def _require_enough(config: AgentTrainerConfig, tasks: int) -> None:
    """Refuse a curriculum where each epoch takes all tasks, and more steps than an epoch has rollouts.

    Raises:
        ConfigError: so it is.
    """
    drawn = min(config.tasks_per_epoch or tasks, tasks)
    rollouts = drawn * config.group_size
    wrong = []
    if config.curriculum == "success" and drawn == tasks and not config.dynamic_sampling:
        wrong.append(
            f"curriculum = success chooses among tasks, and an epoch takes all {tasks} of them: give a smaller "
            "tasks_per_epoch, or more tasks"
        )
    if config.steps_per_epoch > rollouts:
        wrong.append(
            f"steps_per_epoch = {config.steps_per_epoch}: an epoch has {rollouts} rollouts ({counted(drawn, 'task')}, "
            f"{config.group_size} each). Give at most as many, or a larger tasks_per_epoch or group_size"
        )
    if wrong:
        raise ConfigError(wrong)


def _runner_settings(config: AgentTrainerConfig, processes: bool) -> RunnerSettings:
    memory = config.rollout_memory * 2**20 or memory_of_machine() // 2
    limits = FlightLimits(config.rollout_seconds, config.rollout_turns, config.rollout_retries, memory)
    return RunnerSettings(
        config.parallel_rollouts, limits, processes, config.lockstep, config.temperature, config.max_tokens
    )  # fmt: skip


def _by_length(rows: Sequence[SampledRow], most: int) -> list[list[SampledRow]]:
    """Cut rows into runs of so many tokens at most; a longer row is alone."""
    runs: list[list[SampledRow]] = []
    tokens = 0
    for row in rows:
        tokens += len(row.ids)
        if not runs or tokens > most:
            runs.append([])
            tokens = len(row.ids)
        runs[-1].append(row)
    return runs
