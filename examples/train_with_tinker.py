"""Trains an agent of OpenAI's client by the Tinker SDK: what `python train.py Agent` does, as a loop of your own.

python serve.py --model tiny &
export TINKER_BASE_URL=http://127.0.0.1:8123 TINKER_API_KEY=tml-local
python examples/warm_start.py hello warm_start.jsonl
python examples/train_with_tinker.py --agent examples/hello.py:hello --warm-start warm_start.jsonl

On hosted Tinker: unset TINKER_BASE_URL, set a key of theirs, and --model Qwen/Qwen3-8B in place of --warm-start.
"""

import argparse
import importlib
import math
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from urllib.error import HTTPError
from urllib.request import urlopen

import tinker
from openai import OpenAI
from tinker import types
from tinker_extras import answer, learn_conversations

ALIAS = "policy"  # the one name that agents ask for; each new snapshot comes behind it
URL = os.environ.get("TINKER_BASE_URL")  # none is hosted Tinker, whose OpenAI endpoint tells no token ids


def arguments():
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", default="examples/hello.py:hello", help="file:function, called with (task, client)")
    parser.add_argument("--model", default="tiny", help="base model")
    parser.add_argument(
        "--warm-start", type=Path, help="conversations (.jsonl) to learn the form of answers from first"
    )
    parser.add_argument("--warm-epochs", type=int, default=3, help="how often")
    parser.add_argument("--warm-rate", type=float, default=5e-3, help="learning rate of that")
    parser.add_argument("--epochs", type=int, default=15, help="rounds of rollouts")
    parser.add_argument("--tasks", type=int, default=64, help="tasks of an epoch")
    parser.add_argument("--group", type=int, default=4, help="rollouts of a task")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps of an epoch")
    parser.add_argument("--advantage", choices=("centred", "batch"), default="batch", help="less whose mean reward")
    parser.add_argument("--loss", choices=("importance_sampling", "ppo"), default="importance_sampling")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", type=int, default=100, help="most tasks to evaluate with, before and after")
    parser.add_argument("--held-out-samples", type=int, default=1, help="rollouts of each of these")
    parser.add_argument("--sdk-sampling", action="store_true", default=not URL, help="as on hosted Tinker")
    return parser.parse_args()


class Policy:
    """The newest snapshot of a model, as agents see it."""

    def __init__(self, training, sdk_sampling):
        self.training, self.tokenizer, self.sampler = training, training.get_tokenizer(), None
        self.sdk_sampling, self.snapshots = sdk_sampling, 0
        self.endpoint = OpenAI(base_url=f"{URL or 'http://unused'}/v1", api_key=os.environ["TINKER_API_KEY"])

    def renew(self):
        """Take a snapshot of the weights, for which the alias stands from now on."""
        if self.sdk_sampling:
            self.sampler = self.training.save_weights_and_get_sampling_client()
            return
        self.snapshots += 1
        kept = self.training.save_weights_for_sampler(f"snapshot-{self.snapshots}", ttl_seconds=3600).result()
        self.endpoint.put(f"/aliases/{ALIAS}", cast_to=object, body={"model": kept.path})

    def play(self, agent, task, draw):
        """Do a task; return the reward, None where the agent failed, and what was sampled: (prompt, ids, logprobs)."""
        client, sampled = self.endpoint.copy(), []

        def create(**request):
            if request.get("stream"):
                raise ValueError("streams are not noted here; `python train.py Agent` does that")
            more = request.pop("extra_body", None) or {}
            request |= {"model": ALIAS, "logprobs": True, "seed": draw.getrandbits(31)}
            if self.sdk_sampling:
                found = answer(self.sampler, self.tokenizer, request)
            else:
                found = self.endpoint.chat.completions.create(**request, extra_body=more | {"return_token_ids": True})
            for choice in found.choices:
                logprobs = [each.logprob for each in choice.logprobs.content]
                sampled.append((found.prompt_token_ids, choice.token_ids, logprobs))
            return found

        client.chat.completions.create = create
        try:
            found = agent(task, client)
            reward = float(found["reward"] if isinstance(found, dict) else found)
            if not math.isfinite(reward):
                raise ValueError(f"the reward is {reward}: it must be a finite number")
            return reward, sampled
        except Exception as error:  # whatever a user's agent raises costs its rollout only
            print(f"a rollout failed: {type(error).__name__}: {error}", file=sys.stderr)
            return None, sampled

    def play_all(self, agent, tasks, group, seed):
        """Return (task, reward, sampled) of each rollout that has a reward; tasks are done so many times each."""
        self.renew()
        plans = [(number, task, random.Random(f"{seed} {number} {sample}"))
                 for number, task in enumerate(tasks) for sample in range(group)]  # fmt: skip
        with ThreadPoolExecutor(64) as pool:
            played = list(pool.map(lambda plan: self.play(agent, *plan[1:]), plans))
        return [(plan[0], *each) for plan, each in zip(plans, played, strict=True) if each[0] is not None]


def rows_of(sampled):
    """Return rows (ids, logprobs; None of what was not sampled): turns that go on from one another are one row."""
    rows = []
    for prompt, ids, logprobs in sampled:
        before = max(
            (row for row in rows if prompt[: len(row[0])] == row[0]), key=lambda row: len(row[0]), default=None
        )
        if before is None:
            before = ([], [])
            rows.append(before)
        before[1].extend([None] * (len(prompt) - len(before[0])) + logprobs)
        before[0][:] = [*prompt, *ids]
    return rows


def advantages_of(rollouts, kind):
    """Return how much better each rollout was than those of its task, or than all."""
    mates = [[other[1] for other in rollouts if kind == "batch" or other[0] == each[0]] for each in rollouts]
    return [each[1] - fmean(rewards) for each, rewards in zip(rollouts, mates, strict=True)]


def reward_of(rollouts):
    """Return the mean reward in words, with its 95 % interval from task to task; ends where there are no two."""
    rewards = [fmean(each[1] for each in mates) for _, mates in groupby(rollouts, key=lambda each: each[0])]
    if len(rewards) < 2:
        sys.exit(f"{len(rewards)} tasks have a reward, and at least 2 must: what the agent says is above")
    interval = 1.96 * stdev(rewards) / len(rewards) ** 0.5
    return f"reward {fmean(rewards):.3f} +- {interval:.3f} of {len(rewards)}"


def policy_data(rollouts):
    """Return what a step learns from (advantage, rows): the mean over sampled tokens, of a loss that is a sum."""
    rows = [(advantage, *row) for advantage, (_, _, sampled) in rollouts if advantage for row in rows_of(sampled)]
    count = sum(value is not None for _, _, logprobs in rows for value in logprobs)
    return [types.Datum(model_input=types.ModelInput.from_ints(ids[:-1]), loss_fn_inputs={
        "target_tokens": ids[1:],
        "logprobs": [value or 0.0 for value in logprobs[1:]],
        "advantages": [0.0 if value is None else advantage / count for value in logprobs[1:]],
    }) for advantage, ids, logprobs in rows]  # fmt: skip


def train(options):
    """Do it all: the form of answers, an evaluation, rounds of rollouts and steps, an evaluation."""
    file, _, name = options.agent.rpartition(":")
    if not Path(file).is_file():
        sys.exit(f"--agent {options.agent}: there is no file {file!r}; give it as file:function")
    sys.path.insert(0, str(Path(file).parent))
    module = importlib.import_module(Path(file).stem)
    if not hasattr(module, name) or not hasattr(module, "tasks"):
        sys.exit(f"--agent {options.agent}: {file} needs the function {name}(task, client), and tasks(split)")
    agent, tasks, held_out = getattr(module, name), module.tasks("train"), module.tasks("val")[: options.held_out]
    service = tinker.ServiceClient()
    training = service.create_lora_training_client(options.model, options.rank, options.seed).result()
    policy = Policy(training, options.sdk_sampling)
    draw = random.Random(options.seed)
    if options.warm_start:
        learn_conversations(
            training, policy.tokenizer, options.warm_start, options.warm_epochs, options.warm_rate, draw
        )

    def evaluate(when):
        # Other random numbers for each seed: else all seeds would have the same luck in what is drawn.
        played = policy.play_all(agent, held_out, options.held_out_samples, f"{options.seed} held out")
        print(f"{when}: {reward_of(played)} held-out tasks", flush=True)
        for _, reward, sampled in played[:3]:
            for ids, _ in rows_of(sampled):
                print(f"  reward {reward:.2f}: {policy.tokenizer.decode(ids)!r}")

    evaluate("before")
    adam = types.AdamParams(learning_rate=options.learning_rate, eps=1e-8, grad_clip_norm=0.5)
    for epoch in range(options.epochs):
        some = draw.sample(tasks, min(options.tasks, len(tasks)))
        rollouts = policy.play_all(agent, some, options.group, f"{options.seed} {epoch}")
        if not rollouts:
            sys.exit(f"epoch {epoch + 1}: the agent fails in all rollouts: what it says is above")
        learned = list(zip(advantages_of(rollouts, options.advantage), rollouts, strict=True))
        draw.shuffle(learned)
        for step in range(options.steps):
            if data := policy_data(learned[step :: options.steps]):
                passed, stepped = training.forward_backward(data, options.loss), training.optim_step(adam)
                passed.result(), stepped.result()
        print(f"epoch {epoch + 1}: reward {fmean(reward for _, reward, _ in rollouts):.3f}", flush=True)
    evaluate("after")
    print(f"kept as {training.save_weights_for_sampler('trained').result().path}")


def require_service(url):
    """Say at once that nobody answers; the SDK would try for a long time without a word."""
    try:
        urlopen(url, timeout=30).close()
    except HTTPError:  # an answer, too
        pass
    except (OSError, ValueError) as error:
        sys.exit(f"nobody answers at TINKER_BASE_URL={url} ({error}): start python serve.py, which prints its address")


if __name__ == "__main__":
    options = arguments()
    if "TINKER_API_KEY" not in os.environ:
        sys.exit("set TINKER_API_KEY, and TINKER_BASE_URL unless it is hosted Tinker: python serve.py prints both")
    if URL:
        require_service(URL)
    train(options)
