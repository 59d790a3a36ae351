"""Trains an agent by agentlightning 1.0: its gateway and its controller make the rollouts, the service has the model.

python3.12 -m venv agl && agl/bin/pip install agentlightning==1.0.2 openai     (Python 3.12 or newer)
python serve.py --model tiny &
export TINKER_BASE_URL=http://127.0.0.1:8123 TINKER_API_KEY=tml-local
python examples/agentlightning_1/train_agent.py --agentlightning agl/bin/python

The gateway knows one model name and sends no key: the name is an alias, behind which each new snapshot comes, and the
key is in the address. With each rollout come the ids and log-probabilities that were sampled, and the reward.
"""

import argparse
import importlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import httpx
import tinker
from tinker import types

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from train_with_tinker import advantages_of, policy_data, reward_of

HERE = Path(__file__).resolve().parent
ALIAS = "policy"


def arguments():
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agentlightning", required=True, help="Python that has agentlightning and openai")
    parser.add_argument("--agent", default="letters:letters", help="module:function, called with (task, client)")
    parser.add_argument("--model", default="tiny", help="base model")
    parser.add_argument("--epochs", type=int, default=8, help="rounds of rollouts, each with an optimizer step")
    parser.add_argument("--tasks", type=int, default=4, help="tasks of an epoch")
    parser.add_argument("--group", type=int, default=4, help="rollouts of a task")
    parser.add_argument("--at-once", type=int, default=16, help="rollouts under way at a time")
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


@contextmanager
def lightning(python, at_once):
    """Start a gateway and a controller, and end them. Yields a client of the gateway."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{found.getsockname()[1]}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "log"), "w+") as log:
        common = {"cwd": folder, "env": environment, "stdout": log, "stderr": log}
        server = [python, "-m", "agentlightning.server", "host=127.0.0.1", f"port={url.rpartition(':')[2]}"]
        proxy = [f"default_proxy.model_name={ALIAS}", "default_proxy.val.temperature=1"]  # else 0.7: another policy
        processes = [subprocess.Popen([*server, *proxy], **common)]
        controller = [python, "-m", "agentlightning.controller", "runner_type=local", f"agl_server.url={url}"]
        limits = [f"local_runner.maximum_size={at_once}", "local_runner.poll_interval=0.2"]
        processes.append(subprocess.Popen([*controller, *limits], **common))
        try:
            with httpx.Client(base_url=url, timeout=60) as client:
                wait_for(lambda: client.get("/healthz").is_success, processes, log)
                yield client
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def wait_for(ask, processes, log, seconds=300.0):
    """Ask until the answer is yes."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and all(process.poll() is None for process in processes):
        try:
            if ask():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    log.seek(0)
    sys.exit(f"the gateway does not answer: {log.read()[-2000:]}")


def play_all(gateway, agent, tasks, group, train=True):
    """Let the controller do tasks so many times each; returns (task, reward, sampled) of those that succeeded."""
    numbers = [number for number in range(len(tasks)) for _ in range(group)]
    local = {"agent_class": "agent:Agent", "env_map": {"TASK": "input.task", "AGENT": "input.agent"}}
    asked = [{
        "input": {"data_id": str(number), "task": json.dumps(tasks[number]), "agent": agent}, "is_train": train,
        "config": {"timeout_seconds": 600, "local": local},
    } for number in numbers]  # fmt: skip
    ids = [each["rollout_id"] for each in gateway.post("/api/rollouts", json=asked).raise_for_status().json()]
    found = []
    for number, id in zip(numbers, ids, strict=True):
        while (state := state_of(gateway.get(f"/api/rollouts/{id}").json())) not in ("succeeded", "failed"):
            time.sleep(0.1)
        events = gateway.get(f"/api/rollouts/{id}/events", params={"format": "triplet"}).json()
        rewards = [event["data"]["value"] for event in events if event["event_type"] == "reward"]
        if state == "failed" or not rewards:
            print(f"a rollout failed: {id}", file=sys.stderr)
            continue
        requests = [event["data"] for event in events if event["event_type"] == "model_request"]
        sampled = [(each["prompt_token_ids"], each["response_token_ids"], each["response_log_probs"])
                   for each in requests]  # fmt: skip
        found.append((number, rewards[-1], sampled))
    return found


def state_of(told):
    """Return the state of a rollout."""
    return (told.get("rollout") or told)["status"]["state"]


def train(options):
    """Do rounds of rollouts and steps, with an evaluation before and after."""
    module = importlib.import_module(options.agent.partition(":")[0])
    tasks, held_out = module.tasks("train"), module.tasks("val")
    training = tinker.ServiceClient().create_lora_training_client(options.model, 32, options.seed).result()
    service = f"{os.environ['TINKER_BASE_URL']}/keys/{os.environ['TINKER_API_KEY']}/v1"
    draw, adam = random.Random(options.seed), types.AdamParams(learning_rate=options.learning_rate, grad_clip_norm=0.5)

    def renew(number):
        kept = training.save_weights_for_sampler(f"snapshot-{number}", ttl_seconds=3600).result()
        httpx.put(f"{service}/aliases/{ALIAS}", json={"model": kept.path}).raise_for_status()

    def evaluate(when):
        played = play_all(gateway, options.agent, held_out, options.group, False)
        print(f"{when}: {reward_of(played)} held-out tasks", flush=True)

    with lightning(options.agentlightning, options.at_once) as gateway:
        gateway.post("/api/models", json=[{"model": ALIAS, "endpoint": service}]).raise_for_status()
        renew("start")
        evaluate("before")
        for epoch in range(options.epochs):
            began, some = time.monotonic(), draw.sample(tasks, min(options.tasks, len(tasks)))
            rollouts = play_all(gateway, options.agent, some, options.group)
            if data := policy_data(list(zip(advantages_of(rollouts, "batch"), rollouts, strict=True))):
                passed, stepped = training.forward_backward(data, "importance_sampling"), training.optim_step(adam)
                passed.result(), stepped.result()
            renew(epoch)
            mean, seconds = fmean(reward for _, reward, _ in rollouts), time.monotonic() - began
            print(f"epoch {epoch + 1}: reward {mean:.3f}, {len(rollouts)} rollouts in {seconds:.1f} s", flush=True)
        evaluate("after")


if __name__ == "__main__":
    given = arguments()
    if not {"TINKER_API_KEY", "TINKER_BASE_URL"} <= os.environ.keys():
        sys.exit("set TINKER_BASE_URL and TINKER_API_KEY: python serve.py prints both")
    if shutil.which(given.agentlightning) is None:
        sys.exit(f"--agentlightning {given.agentlightning}: there is no such Python; make it as said in --help")
    train(given)
