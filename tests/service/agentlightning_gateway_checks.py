"""The gateway of agentlightning 1.0 between an agent and a service: `python ... URL ALIAS FIRST SECOND [KEY]`.

The gateway knows one fixed model name, and sends no key. So the name is an alias, which is pointed at one checkpoint
and then at another, and the key is in the address that the gateway is given.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

PATIENCE = 300.0


class Agent:
    """What the controller starts for each rollout: a task of one turn, with a reward for the length of the answer."""

    def run(self) -> None:
        """Ask once, and tell the reward."""
        from openai import OpenAI

        client = OpenAI(base_url=os.environ["AGL_OPENAI_BASE_URL"], api_key=os.environ["AGL_KEY"] or "none")
        task = [{"role": "user", "content": "Say digits"}]
        answer = client.chat.completions.create(model="whatever", messages=task, max_tokens=8)
        reward = {"event_type": "reward", "data": {"value": float(len(answer.choices[0].message.content))}}
        httpx.post(os.environ["AGL_EVENT_URL"], json=reward).raise_for_status()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(ask, what: str):
    """Ask until there is an answer."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            found = ask()
        except httpx.TransportError:
            found = None
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} doesn't come")


def main() -> int:
    """Do all checks; returns the exit code."""
    url, alias, first, second, *rest = sys.argv[1:]
    key = rest[0] if rest else "tml-local"
    folder, gateway = tempfile.mkdtemp(), f"http://127.0.0.1:{(port := free_port())}"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    common = {"cwd": folder, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    server = subprocess.Popen(
        [sys.executable, "-m", "agentlightning.server", "host=127.0.0.1", f"port={port}",
         f"default_proxy.model_name={alias}"], **common,
    )  # fmt: skip
    controller = None
    try:
        wait_for(lambda: httpx.get(f"{gateway}/healthz").status_code == 200, "the gateway")
        controller = subprocess.Popen(
            [sys.executable, "-m", "agentlightning.controller", "runner_type=local", f"agl_server.url={gateway}",
             "local_runner.poll_interval=0.5"], **common,
        )  # fmt: skip
        registered = [{"model": alias, "endpoint": f"{url}/keys/{key}/v1"}]
        httpx.post(f"{gateway}/api/models", json=registered).raise_for_status()
        prints = [rollout(gateway, url, alias, key, checkpoint) for checkpoint in (first, second)]
        assert prints[0] != prints[1], prints
    finally:
        for process in (controller, server):
            if process is not None:
                process.terminate()
                process.wait()
    print("agentlightning 1.0 holds")
    return 0


def rollout(gateway: str, url: str, alias: str, key: str, checkpoint: str) -> str:
    """Point the alias at a checkpoint, let a rollout run, look at what comes of it; returns which weights answered."""
    pointed = httpx.put(f"{url}/keys/{key}/v1/aliases/{alias}", json={"model": checkpoint})
    assert pointed.status_code == 200, pointed.text
    local = {"agent_class": "agentlightning_gateway_checks:Agent"}
    asked = [{"input": {"data_id": "0"}, "is_train": True, "config": {"timeout_seconds": 200, "local": local}}]
    made = httpx.post(f"{gateway}/api/rollouts", json=asked)
    made.raise_for_status()
    id = made.json()[0]["rollout_id"]

    def ended() -> str:
        told = httpx.get(f"{gateway}/api/rollouts/{id}").json()
        state = (told.get("rollout") or told)["status"]["state"]
        return state if state in ("succeeded", "failed") else ""

    assert wait_for(ended, "the end of a rollout") == "succeeded"
    events = httpx.get(f"{gateway}/api/rollouts/{id}/events", params={"format": "triplet"}).json()
    (request,) = [event["data"] for event in events if event["event_type"] == "model_request"]
    (reward,) = [event["data"] for event in events if event["event_type"] == "reward"]
    assert request["prompt_token_ids"] and 0 < len(request["response_token_ids"]) <= 8
    assert len(request["response_log_probs"]) == len(request["response_token_ids"]) and reward["value"] >= 0
    whole = httpx.get(f"{gateway}/api/rollouts/{id}/events").json()
    (request,) = [event["data"] for event in whole if event["event_type"] == "model_request"]
    assert request["response"]["model"] == alias
    return request["response"]["system_fingerprint"]


if __name__ == "__main__":
    sys.exit(main())
