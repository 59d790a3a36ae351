"""Settings of AgentTrainer: section `[AgentTrainer]` of config.ini."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from config.language_config import LanguageConfig


@dataclass(kw_only=True)
class AgentTrainerConfig(LanguageConfig):
    """What `AgentTrainer` reads, beside the settings of every trainer of a language model."""

    # the agent
    agent: str = "examples/hello.py:hello"
    """file:function or module:function; called with a task and an OpenAI client, it returns a reward."""
    agent_python: Path | None = None
    """Python that plays the agent, bin/python of an environment which has its packages; none takes this program's."""
    tasks: Path | None = None
    """File of tasks, a row each (.jsonl, .json, .csv, .parquet); none takes those of the module, tasks(split)."""
    val_tasks: Path | None = None
    """File of tasks to validate on; none takes val_share of tasks."""
    val_share: Annotated[float, Interval(gt=0, lt=1)] = 0.1
    """Share of the tasks to validate on, at least one, where there are none of their own."""
    val_samples: Annotated[int, Gt(0)] = 1
    """Rollouts of each validation task."""

    # rollouts
    tasks_per_epoch: Annotated[int, Ge(0)] = 8
    """Tasks that an epoch draws; 0 takes all."""
    curriculum: Literal["none", "success"] = "none"
    """Which tasks are drawn: all alike, or by p (1 - p) of their share p of successes so far: rather those that succeed
    at times than those that always or never do."""
    dynamic_sampling: bool = False
    """Skip tasks whose rollouts all have one reward, and draw others until tasks_per_epoch tasks have several."""
    sampling_rounds: Annotated[int, Gt(1)] = 4
    """Rounds of rollouts of an epoch with dynamic_sampling, at most."""
    group_size: Annotated[int, Gt(1)] = 8
    """Rollouts of a task, whose rewards are compared with one another."""
    parallel_rollouts: Annotated[int, Gt(0)] = 64
    """Rollouts under way at a time."""
    rollout_seconds: Annotated[float, Ge(0)] = 300.0
    """Time that the agent has for a rollout, without that in which it waits for answers; one that takes longer is
    broken off and left out. 0 sets no limit."""
    rollout_turns: Annotated[int, Ge(0)] = 1000
    """Answers that a rollout may take; one that takes more is broken off and left out. 0 sets no limit."""
    rollouts_in: Literal["processes", "threads"] = "processes"
    """Where agents play: processes, one for each rollout under way, so that a crash costs that rollout only; or threads
    of the training process, which take less memory and can share what they have."""
    rollout_memory: Annotated[int, Ge(0)] = 0
    """MiB that the process of a rollout may take; one that takes more is broken off and left out. 0 for half of the
    machine's memory."""
    rollout_retries: Annotated[int, Ge(0)] = 0
    """How often a rollout is begun again, with other random numbers, whose agent failed or took too long."""
    lockstep: bool = True
    """Sample in waves, once every rollout under way waits for an answer: the same bits each time. off is faster where
    tools are slow, and the same to rounding."""
    temperature: Annotated[float, Gt(0)] = 1.0
    """Temperature of requests that name none."""
    max_tokens: Annotated[int, Ge(0)] = 0
    """Most tokens of an answer, of requests that name no number; 0 for what the context has room for."""
    success_reward: float = 1.0
    """Reward from which on a rollout counts as a success, where the agent returns no `success`."""
    failed_reward: float | None = None
    """Reward of rollouts that failed, were broken off or returned none, so that what led there becomes less likely;
    none leaves them out."""

    # what is learned
    advantage: Literal["centred", "std", "leave_one_out", "batch"] = "centred"
    """What a reward becomes: less the mean of its group; that, divided by the group's deviation; less the mean of
    the others; or less the mean of all of the epoch's rollouts (batch), so that failing where all fail counts too."""
    loss: Literal["importance_sampling", "ppo", "cispo"] = "importance_sampling"
    """Policy gradient, its clipped form, or clipped weights of the log-likelihood."""
    clip: tuple[Annotated[float, Ge(0)], ...] = ()
    """Lowest and highest ratio of probabilities that ppo and cispo don't clip; [] for 0.8, 1.2 and 0, 4."""
    average: Literal["tokens", "rollouts", "constant"] = "tokens"
    """What the loss of an optimizer step is a mean over: sampled tokens; rollouts whatever their length; or rollouts,
    each the sum over its tokens divided by average_length."""
    average_length: Annotated[int, Ge(0)] = 0
    """Tokens by which average = constant divides a rollout's sum; 0 takes max_tokens."""
    train_cut_off: bool = True
    """Also train on rollouts in which an answer was cut off at its greatest length."""
    overlong_length: Annotated[int, Ge(0)] = 0
    """Sampled tokens of a rollout from which on overlong_penalty is taken off its reward; 0 for never."""
    overlong_buffer: Annotated[int, Ge(0)] = 0
    """Tokens before overlong_length over which the penalty grows from 0."""
    overlong_penalty: Annotated[float, Gt(0)] = 1.0
    """What is taken off the reward of a rollout that is too long."""
    max_steps_off_policy: Annotated[int, Ge(0)] = 0
    """Learn from rollouts of earlier epochs too, until the weights are so many optimizer steps away from those that
    sampled them; older ones are dropped and counted. 0 learns from each in its own epoch alone."""
    kl_weight: Annotated[float, Ge(0)] = 0.0
    """Weight of a penalty on the divergence from the model as training began."""

    # training
    epochs: Annotated[int, Gt(0)] = 20
    """Rounds of rollouts and steps."""
    steps_per_epoch: Annotated[int, Gt(0)] = 1
    """Optimizer steps that the rollouts of an epoch are spread over."""
    learning_rate: Annotated[float, Gt(0)] = 1e-4
    """Step size of AdamW at its highest."""
    warmup_share: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of the optimizer steps in which the learning rate rises."""
    final_rate_share: Annotated[float, Interval(ge=0, le=1)] = 1.0
    """Learning rate at the end, as a share of the highest; it falls along a cosine."""
    validate_every_n_epochs: Annotated[int, Gt(0)] = 5
    """Epochs between two rounds of all validation tasks."""
    monitor: str = "val_reward"
    """Number of the history by which the best epoch is chosen."""
    early_stopping_patience: Annotated[int, Ge(0)] = 0
    """Validations in a row without improvement that end the run; 0 for none."""

    # what is left of a run
    sample_count: Annotated[int, Ge(0)] = 3
    """Validation tasks whose transcripts are written at the end, from before and after; and tasks of the first and the
    last epoch of which the best rollout and the worst are."""
