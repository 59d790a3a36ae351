"""Trains an agent by agentlightning 0.3: its Trainer and runners make the rollouts, the service has the model.

pip install agentlightning==0.3.0 tinker                                       (an environment of its own)
python serve.py --model tiny &
export TINKER_BASE_URL=http://127.0.0.1:8123 TINKER_API_KEY=tml-local
ENVIRONMENT/bin/python examples/agentlightning_0_3/train_agent.py

The algorithm puts tasks into the store, with the newest snapshot as the resource that agents ask; runners do them, and
the tracer's spans have the ids and log-probabilities that were sampled. (Its own algorithm, VERL, needs GPUs and vLLM.)
"""

import argparse
import importlib
import os
import random
import sys
import time
from pathlib import Path
from statistics import fmean

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else its import asks the web
os.environ.setdefault("AGENTOPS_LOG_SESSION_REPLAY_URL", "False")  # of pages that nobody has: nothing is sent there

import agentlightning as agl
import tinker
from openai import OpenAI
from tinker import types

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from train_with_tinker import advantages_of, policy_data, reward_of


def arguments():
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", default="letters:letters", help="module:function, called with (task, client)")
    parser.add_argument("--model", default="tiny", help="base model")
    parser.add_argument("--epochs", type=int, default=8, help="rounds of rollouts, each with an optimizer step")
    parser.add_argument("--tasks", type=int, default=4, help="tasks of an epoch")
    parser.add_argument("--group", type=int, default=4, help="rollouts of a task")
    parser.add_argument("--runners", type=int, default=1, help="threads that do tasks")
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


OPTIONS = arguments()
MODULE = importlib.import_module(OPTIONS.agent.partition(":")[0])


@agl.rollout
def rollout(task: dict, llm: agl.LLM) -> float:
    """Play the agent as it is, with a client that asks for the ids too."""
    client = OpenAI(base_url=llm.endpoint, api_key=os.environ["TINKER_API_KEY"])
    ask = client.chat.completions.create

    def create(**request):
        return ask(**request | {"model": llm.model, "logprobs": True}, extra_body={"return_token_ids": True})

    client.chat.completions.create = create
    found = getattr(MODULE, OPTIONS.agent.partition(":")[2])(task, client)
    return float(found["reward"] if isinstance(found, dict) else found)


class PolicyGradient(agl.Algorithm):
    """Rounds of rollouts and steps, with an evaluation before and after."""

    def __init__(self, training):
        self.training, self.snapshots = training, 0

    async def run(self, train_dataset=None, val_dataset=None):
        """Train."""
        draw = random.Random(OPTIONS.seed)
        adam = types.AdamParams(learning_rate=OPTIONS.learning_rate, grad_clip_norm=0.5)
        tasks, held_out = MODULE.tasks("train"), MODULE.tasks("val")
        await self.evaluate("before", held_out)
        for epoch in range(OPTIONS.epochs):
            began, some = time.monotonic(), draw.sample(tasks, min(OPTIONS.tasks, len(tasks)))
            rollouts = await self.play_all(some, OPTIONS.group, "train")
            if data := policy_data(list(zip(advantages_of(rollouts, "batch"), rollouts, strict=True))):
                passed = await self.training.forward_backward_async(data, "importance_sampling")
                stepped = await self.training.optim_step_async(adam)
                await passed, await stepped
            mean, seconds = fmean(reward for _, reward, _ in rollouts), time.monotonic() - began
            print(f"epoch {epoch + 1}: reward {mean:.3f}, {len(rollouts)} rollouts in {seconds:.1f} s", flush=True)
        await self.evaluate("after", held_out)

    async def evaluate(self, when, held_out):
        """Say the mean reward of held-out tasks, each played as often as one of training."""
        played = await self.play_all(held_out, OPTIONS.group, "val")
        print(f"{when}: {reward_of(played)} held-out tasks", flush=True)

    async def play_all(self, tasks, group, mode):
        """Let the runners do tasks so many times each; returns (task, reward, sampled) of those that succeeded."""
        store, adapter = self.get_store(), agl.TracerTraceToTriplet()
        self.snapshots += 1
        saved = await self.training.save_weights_for_sampler_async(f"snapshot-{self.snapshots}", ttl_seconds=3600)
        llm = agl.LLM(endpoint=f"{os.environ['TINKER_BASE_URL']}/v1", model=(await saved).path)
        resources = await store.add_resources({"llm": llm})
        numbers = [number for number in range(len(tasks)) for _ in range(group)]
        asked = [await store.enqueue_rollout(tasks[number], mode, resources_id=resources.resources_id)
                 for number in numbers]  # fmt: skip
        ids, done = [each.rollout_id for each in asked], []
        while len(done) < len(ids):
            done = await store.wait_for_rollouts(rollout_ids=ids, timeout=0.5)
        found = []
        for number, id in zip(numbers, ids, strict=True):
            triplets = adapter.adapt(await store.query_spans(id))
            rewards = [each.reward for each in triplets if each.reward is not None]
            if not rewards:
                print(f"a rollout failed: {id}", file=sys.stderr)
                continue
            sampled = [(each.prompt["token_ids"], each.response["token_ids"], logprobs_of(each)) for each in triplets]
            found.append((number, rewards[-1], sampled))
        return found


def logprobs_of(triplet):
    """Return the log-probabilities that a span has of the sampled ids."""
    return [entry["logprob"] for entry in triplet.response["logprobs"]]


if __name__ == "__main__":
    if not {"TINKER_API_KEY", "TINKER_BASE_URL"} <= os.environ.keys():
        sys.exit("set TINKER_BASE_URL and TINKER_API_KEY: python serve.py prints both")
    made = tinker.ServiceClient().create_lora_training_client(OPTIONS.model, 32, OPTIONS.seed).result()
    tracer = agl.AgentOpsTracer()
    runner = agl.LitAgentRunner(tracer, poll_interval=0.2, interval_jitter=0.1)  # by default it looks every 5 s
    agl.Trainer(
        algorithm=PolicyGradient(made), tracer=tracer, runner=runner, n_runners=OPTIONS.runners,
        strategy={"type": "shm", "main_thread": "algorithm"},
    ).fit(rollout, train_dataset=None, val_dataset=None)  # fmt: skip
    sys.stdout.flush()
    os._exit(0)  # its threads may go on
