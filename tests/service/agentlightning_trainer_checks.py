"""A trainer of agentlightning 0.3 over a service: `python agentlightning_trainer_checks.py URL FIRST SECOND`.

Its agents ask the service with OpenAI's client. What the tracer takes off the answers must be the ids and logprobs that
were sampled, and a resource that names another checkpoint must bring other weights.
"""

import asyncio
import os
import sys

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else its import asks the web

import agentlightning as agl
from openai import OpenAI

TASKS = 2
SAMPLED: list[tuple[str, list[int], list[int], list[float]]] = []


@agl.rollout
def agent(task: str, llm: agl.LLM) -> float:
    """Ask once; the length of the answer is the reward."""
    client = OpenAI(base_url=llm.endpoint, api_key="tml-local")
    answer = client.chat.completions.create(
        model=llm.model, messages=[{"role": "user", "content": task}], max_tokens=8, logprobs=True,
        extra_body={"return_token_ids": True},
    )  # fmt: skip
    choice = answer.choices[0]
    found = [entry.logprob for entry in choice.logprobs.content]
    SAMPLED.append((answer.system_fingerprint, answer.prompt_token_ids, choice.token_ids, found))
    return float(len(choice.message.content))


class Trains(agl.Algorithm):
    """Lets tasks be done under one checkpoint and then under the other, and looks at what was traced.

    Args:
        url: where the service is.
        checkpoints: names of models.
    """

    def __init__(self, url: str, checkpoints: list[str]) -> None:
        self.url, self.checkpoints = url, checkpoints
        self.seen = 0

    async def run(self, train_dataset=None, val_dataset=None) -> None:
        """Do the steps."""
        store, adapter = self.get_store(), agl.TracerTraceToTriplet()
        for checkpoint in self.checkpoints:
            llm = agl.LLM(endpoint=f"{self.url}/v1", model=checkpoint)
            resources = await store.add_resources({"llm": llm})
            asked = [await store.enqueue_rollout(f"task {number}", "train", resources_id=resources.resources_id)
                     for number in range(TASKS)]  # fmt: skip
            ids = [each.rollout_id for each in asked]
            done = []
            for _ in range(600):
                done = await store.wait_for_rollouts(rollout_ids=ids, timeout=0.5)
                if len(done) == TASKS:
                    break
                await asyncio.sleep(0.2)
            assert [each.status for each in done] == ["succeeded"] * TASKS, done
            for id in ids:
                (triplet,) = adapter.adapt(await store.query_spans(id))
                prompt, response = triplet.prompt["token_ids"], triplet.response["token_ids"]
                assert any((prompt, response) == (each[1], each[2]) for each in SAMPLED), triplet
                assert triplet.reward is not None
                self.seen += 1


def main() -> int:
    """Do all checks; returns the exit code."""
    url, *checkpoints = sys.argv[1:]
    trains = Trains(url, checkpoints)
    agl.Trainer(
        algorithm=trains, tracer=agl.AgentOpsTracer(), n_runners=1, strategy={"type": "shm", "main_thread": "algorithm"}
    ).fit(agent, train_dataset=None, val_dataset=None)
    assert trains.seen == TASKS * len(checkpoints)
    assert len({each[0] for each in SAMPLED}) == len(checkpoints)
    print("agentlightning 0.3 holds", flush=True)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # its threads may go on
