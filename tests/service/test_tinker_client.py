"""The Tinker protocol through its official client, unmodified: the newest, and older ones in their own environments.

What of the protocol is served, and what shows it. What isn't is refused by an error that no client tries again.

    sessions   config, dynamic config, session, heartbeat, finish, telemetry, capabilities, health: what_there_is and
               test_tinker_app; sessions listed, told, searched: test_tinker_listing
    training   create_model, get_info, forward, forward_backward by JSON, protobuf and zstd, optim_step: fine_tuning;
               batches in pieces, repeats, gaps, order: many_rows, futures, test_tinker_app; the five losses and those
               of the client's own: losses_of_reinforcement, loss_of_the_users_own
    weights    save_weights, save_weights_for_sampler with a name and at once, save_weights_external, load_weights in
               place and as a new model, with the optimizer and without, weights_info, unload_model: checkpoints; lists,
               ttl, delete, archive, addresses of files: test_tinker_listing
    sampling   sampling sessions, asample, stops, seeds, ends: sampling, ends; logprobs of prompts and samples, the
               likeliest tokens: prompt_logprobs; cancel_future, samples that nobody waits for, too many of them:
               test_tinker_sampling
    refused    publish; copies, bills, audits, accounts, projects, traces; losses as programs; images; Dimuon; gspo and
               stable_reinforce; weights that change while they are sampled from; encrypted files: mistakes,
               test_tinker_app, test_tinker_messages
"""

import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("tinker")

import tinker_client_checks
from client_environments import client_python
from tinker_calls import quick_learner

from llm.engine import EngineLimits
from service.local_service import serve

CHECKS = Path(tinker_client_checks.__file__)
OLDER = ("0.6.3", "0.16.1", "0.24.1", "0.30.4")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    limits = EngineLimits(adapters=1000)  # the clients of all versions leave theirs behind
    with serve(quick_learner(), tmp_path_factory.mktemp("store"), "org/tiny", engine_limits=limits) as service:
        yield service


@pytest.fixture(scope="module")
def client(served):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINKER_TELEMETRY", "0")
        with tinker_client_checks.client(served.url, served.models.name) as client:
            yield client


@pytest.mark.parametrize("check", tinker_client_checks.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_newest_client(client, check):
    check(client)


@pytest.mark.slow
@pytest.mark.parametrize("version", OLDER)
def test_an_older_client(served, tmp_path, version):
    python = client_python(tmp_path, "--no-deps", f"tinker=={version}")
    quiet = {"TINKER_TELEMETRY": "0", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-W", "ignore", CHECKS, served.url, served.models.name],
        env=os.environ | quiet, cwd=tmp_path, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    held = [line for line in done.stdout.splitlines() if f"tinker {version}" in line and " holds " in line]
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(held) == len(tinker_client_checks.CHECKS)
