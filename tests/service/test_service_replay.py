"""A service that goes on after a kill: in a process that gets SIGKILL, and from copies of its folder at one moment."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("tinker")

import httpx
import tinker
from safetensors.torch import load_file
from system_calls import FullDisk, between_calls
from tinker import types

from llm import base_model
from llm.engine import EngineLimits
from service.journal.journal_file import JournalError
from service.journal.store import STATE
from service.local_service import serve
from service.tinker.state_keeper import Cadence
from service.tinker.tinker_endpoint import TinkerLimits

ROOT = Path(__file__).resolve().parents[2]
ADAM = {"adam_params": {"learning_rate": 1e-2}}
HOLD = TinkerLimits(hold=1.0)
NEVER = Cadence(seconds=1e9, rest=1e9)
ALWAYS = Cadence(seconds=0.0, times=0.0, rest=0.0, rest_times=0.0)
WAIT = 60


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("TINKER_TELEMETRY", "0")


def tokens(number):
    return [(number * 37 + place * 11) % 256 for place in range(12)]


def datum(number):
    whole = tokens(number)
    inputs = {"target_tokens": whole[1:], "weights": [1.0] * (len(whole) - 1)}
    return types.Datum(model_input=types.ModelInput.from_ints(whole[:-1]), loss_fn_inputs=inputs)


def learn(url, steps, told=lambda step: None):
    """Train by the official client; return what it was told, and where the end is saved."""
    with tinker.ServiceClient(base_url=url, api_key="tml-x") as client:  # else it would knock at a closed door for ever
        trainer = client.create_lora_training_client(base_model="tiny", rank=4, seed=1).result()
        heard = []
        for step in range(steps):
            waited = [trainer.forward_backward([datum(step), datum(step + 50)], "cross_entropy"),
                      trainer.forward_backward([datum(step + 100)], "cross_entropy"),
                      trainer.optim_step(types.AdamParams(learning_rate=1e-2))]  # fmt: skip
            heard.append([each.result().metrics for each in waited])
            told(step)
        return heard, trainer.save_state("end").result().path


def saved(folder, path):
    """Return the tensors of a checkpoint."""
    model, kind, name = path.removeprefix("tinker://").split("/")
    place = folder / "checkpoints" / model.replace(":", ".") / kind / name
    files = ("adapter_model.safetensors", "optimizer.safetensors")
    return {f"{file}/{key}": tensor for file in files for key, tensor in load_file(place / file).items()}


def assert_same(one, other):
    assert one.keys() == other.keys() and all((one[key] == other[key]).all() for key in one)


def test_a_client_goes_on_after_a_kill_and_ends_with_the_same_bits(tmp_path):
    base = base_model.load("tiny")
    with serve(base, tmp_path / "whole", keep=False) as service:
        heard, path = learn(service.url, 6)
        whole = saved(tmp_path / "whole", path)
    words = ["serve.py", "--model", "tiny", "--port", "0", "--folder", str(tmp_path / "killed")]
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().split(" at ")[1].split()[0]
            ended, reached = [], threading.Event()
            told = lambda step: reached.set() if step == 2 else None  # noqa: E731
            client = threading.Thread(target=lambda: ended.append(learn(url, 6, told)), daemon=True)
            client.start()
            assert reached.wait(WAIT)
        finally:
            process.send_signal(signal.SIGKILL)  # while the client's next requests are on their way
    with serve(base, tmp_path / "killed" / "tiny", port=int(url.rpartition(":")[2])) as service:
        assert service.replayed >= 6
        client.join(WAIT)
        assert ended[0][0] == heard
        assert_same(saved(tmp_path / "killed" / "tiny", ended[0][1]), whole)


# ------------------------------------------------------------------------------------- copies of a folder at one moment


class Talk:
    """Bare requests to a service, and what came of them as bytes."""

    def __init__(self, url):
        self.url = url
        self.http = httpx.Client(base_url=f"{url}/api/v1", timeout=WAIT)

    def post(self, route, status=200, /, **fields):
        answer = self.http.post(route, json=fields)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def ask(self, route, /, **fields):
        return self.post(route, **fields)["request_id"]

    def bytes(self, id, kind="application/json"):
        for _ in range(WAIT):
            answer = self.http.post("retrieve_future", json={"request_id": id}, headers={"accept": kind})
            if answer.status_code != 408:
                break
        assert answer.status_code == 200, answer.text
        return answer.content

    def session(self):
        return self.post("create_session", user_metadata={"whose": "mine"})["session_id"]

    def model(self, session, number=0):
        made = self.ask("create_model", session_id=session, model_seq_id=number, base_model="tiny",
                        lora_config={"rank": 4}, user_metadata={"run": str(number)})  # fmt: skip
        self.bytes(made)
        return f"{session}:train:{number}"

    def loss(self, model, number, rows=(1, 2), what="forward_backward"):
        data = [{"model_input": {"chunks": [{"type": "encoded_text", "tokens": tokens(row)[:-1]}]},
                 "loss_fn_inputs": {"target_tokens": {"data": tokens(row)[1:], "dtype": "int64", "shape": [11]},
                                    "weights": {"data": [1.0] * 11, "dtype": "float32", "shape": [11]}}}
                for row in rows]  # fmt: skip
        inside = {f"{what}_input": {"data": data, "loss_fn": "cross_entropy"}}
        return self.ask(what, model_id=model, seq_id=number, **inside)

    def step(self, model, number):
        return self.ask("optim_step", model_id=model, seq_id=number, **ADAM)

    def sample(self, session, number, **more):
        prompt = {"chunks": [{"type": "encoded_text", "tokens": tokens(7)}]}
        settings = {"max_tokens": 8, "seed": 3, "temperature": 1.0, "stop": []}
        return self.ask("asample", sampling_session_id=session, seq_id=number, num_samples=2, prompt=prompt,
                        sampling_params=settings, prompt_logprobs=True, **more)  # fmt: skip

    def both(self, *ids):
        return [(self.bytes(id), self.bytes(id, "application/x-protobuf")) for id in ids]


def busy(talk):
    """Do something of all kinds; return the ids of what was answered, and a model with a gradient not yet used."""
    session = talk.session()
    model, other = talk.model(session), talk.model(session, 1)
    done = [
        talk.loss(model, 1),
        talk.loss(other, 1, rows=(3,)),
        talk.step(model, 2),
        talk.loss(model, 3, what="forward"),
    ]
    for number, name in ((4, "a"), (5, "b"), (6, "a")):
        done.append(talk.ask("save_weights", model_id=model, seq_id=number, path=name, overwrite=True))
    done.append(talk.ask("save_weights_for_sampler", model_id=model, seq_id=7, path="c", ttl_seconds=5000))
    done.append(talk.ask("save_weights_for_sampler", model_id=model, seq_id=8, sampling_session_seq_id=5))
    done.append(talk.loss(model, 9, rows=(400,)))
    done.append(talk.ask("save_weights", model_id=model, seq_id=10, path="b"))  # there is one: an error
    talk.both(*done)
    sampler = talk.post("create_sampling_session", session_id=session, sampling_session_seq_id=6,
                        model_path=f"tinker://{model}/sampler_weights/c")["sampling_session_id"]  # fmt: skip
    done += [talk.sample(sampler, 0), talk.sample(f"{session}:sample:5", 0)]
    talk.both(*done)
    assert talk.http.delete(f"training_runs/{model}/checkpoints/weights/b").status_code == 204
    return session, model, other, done


def lists(talk, session):
    paths = ("training_runs", "checkpoints", f"sessions/{session}")
    found = [talk.http.get(path).json() for path in paths]
    assert found[1]["checkpoints"] and found[2]["sampler_ids"]
    return found


@pytest.mark.parametrize("cadence", [NEVER, ALWAYS], ids=["journal", "states"])
def test_what_was_answered_and_listed_is_the_same_and_gradients_go_on(tmp_path, cadence):
    base = base_model.load("tiny")
    with serve(base, tmp_path / "first", cadence=cadence) as service:
        talk = Talk(service.url)
        session, model, other, done = busy(talk)
        if cadence is ALWAYS:
            settle(tmp_path / "first")
        told, listed = talk.both(*done), lists(talk, session)
        copy = shutil.copytree(tmp_path / "first", tmp_path / "copy")
        after = talk.both(talk.step(model, 11), talk.step(other, 2), talk.loss(model, 12))
    states = list((copy / "journal" / "states").iterdir())
    assert bool(states) == (cadence is ALWAYS)
    with serve(base, copy, cadence=NEVER) as service:
        talk = Talk(service.url)
        assert bool(service.replayed) == (cadence is NEVER)
        assert talk.both(*done) == told
        assert lists(talk, session) == listed
        assert talk.both(talk.step(model, 11), talk.step(other, 2), talk.loss(model, 12)) == after
        talk.post("session_heartbeat", session_id=session)
        for id, before in ((f"{session}:sample:6", told[-2][0]), (f"{session}:sample:5", told[-1][0])):
            sequences = [json.loads(each)["sequences"] for each in (talk.bytes(talk.sample(id, 1)), before)]
            assert [each["tokens"] for each in sequences[0]] == [each["tokens"] for each in sequences[1]]


def settle(folder):
    """Wait until a state holds all: no record but its first is in the last file of the journal."""
    over = threading.Event()
    while not over.wait(0.02):
        files = sorted((folder / "journal").glob("*.journal"))
        states = sorted((folder / "journal" / "states").glob("[0-9]*"))
        if (
            len(files) == 1
            and states
            and states[-1].name == files[0].stem
            and files[0].read_bytes().count(b"rec\n") == 1
        ):
            return


def test_what_was_promised_and_not_done_is_done_after_the_start(tmp_path):
    base = base_model.load("tiny")
    with serve(base, tmp_path / "first", cadence=NEVER) as service:
        talk = Talk(service.url)
        session = talk.session()
        model = talk.model(session)
        block = threading.Event()
        service.loop.between_steps(lambda: block.wait(WAIT))
        sampler = talk.post("create_sampling_session", session_id=session, sampling_session_seq_id=0, base_model="tiny")
        ids = [talk.loss(model, 1), talk.step(model, 3), talk.loss(model, 2, rows=(5,)), talk.loss(model, 4)]
        ids.append(talk.sample(sampler["sampling_session_id"], 0))
        copy = shutil.copytree(tmp_path / "first", tmp_path / "copy")
        block.set()
        told = talk.both(*ids)
    with serve(base, copy) as service:
        assert service.replayed == 1
        assert Talk(service.url).both(*ids) == told
    with serve(base, copy) as service:  # and once more, after an orderly end
        assert service.replayed == 0
        assert Talk(service.url).both(*ids) == told


def test_a_full_disk_refuses_requests_until_there_is_room_and_loses_nothing(tmp_path):
    disk = FullDisk(10**7, ".journal")
    with between_calls(disk), serve(base_model.load("tiny"), tmp_path / "first", limits=HOLD, cadence=NEVER) as service:
        talk = Talk(service.url)
        session = talk.session()
        model = talk.model(session)
        taken = talk.loss(model, 1)
        before = talk.bytes(taken)
        block = threading.Event()
        service.loop.between_steps(lambda: block.wait(WAIT))
        loss = talk.loss(model, 2)
        save = talk.ask("save_weights", model_id=model, seq_id=3, path="kept")
        disk.room = 20
        refused = talk.post("optim_step", 503, model_id=model, seq_id=4, **ADAM)
        assert "No space left" in refused["error"] and refused["category"] == "server"
        talk.post("create_session", 503)
        block.set()
        shown = talk.both(loss)  # follows from requests that are on disk, whatever is not
        told = talk.http.post("retrieve_future", json={"request_id": save})  # done, and not yet kept
        assert told.status_code == 408 and told.json()["queue_state"] == "paused_capacity"
        assert "The journal&#x27;s disk is full: no request is taken" in httpx.get(service.url).text
        assert "menagerie_journal_trouble 1" in httpx.get(f"{service.url}/metrics").text
        copy = shutil.copytree(tmp_path / "first", tmp_path / "copy")
        disk.room = 10**7
        after = talk.both(save, talk.step(model, 4))
    with serve(base_model.load("tiny"), copy) as service:
        talk = Talk(service.url)
        assert talk.bytes(taken) == before and talk.both(loss) == shown
        assert talk.both(save, talk.step(model, 4)) == after


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """A folder in which there is something to do again, and one after an orderly end."""
    folder = tmp_path_factory.mktemp("left")
    base = base_model.load("tiny")
    with serve(base, folder / "first", cadence=NEVER) as service:
        talk = Talk(service.url)
        model = talk.model(talk.session())
        talk.both(talk.loss(model, 1), talk.step(model, 2))
        shutil.copytree(folder / "first", folder / "killed")
    return folder


def copied(left, name, folder):
    return shutil.copytree(left / name, folder / "copy")


def refused(folder, base=None, **options):
    with pytest.raises(JournalError) as told, serve(base or base_model.load("tiny"), folder, **options):
        pass
    return str(told.value)


def test_another_base_model_is_refused(left, tmp_path):
    base = base_model.load("tiny")
    told = refused(copied(left, "first", tmp_path), replace(base, digest="f" * 64, source="other"))
    assert f"is of the base model tiny (digest {base.digest})" in told and "--folder" in told


def test_another_version_is_refused_where_it_matters_and_names_what_would_be_lost(left, tmp_path, monkeypatch):
    monkeypatch.setattr("service.local_service.VERSION", "99.0")
    told = refused(copied(left, "killed", tmp_path))
    assert "request 0 of model" in told and "(create_model) was done with program" in told and "program 99.0" in told
    with serve(base_model.load("tiny"), shutil.copytree(left / "first", tmp_path / "ended")) as service:
        assert service.replayed == 0


def test_other_numbers_are_refused_by_the_first_request_that_has_them(left, tmp_path):
    """A device that rounds in another way, as replay meets it: the weights are others, the digest is not."""
    base = base_model.load("tiny")
    base.model.draw(1)
    told = refused(copied(left, "killed", tmp_path), base)
    assert "request 1 of model" in told and "(forward_backward) does not give what it gave before" in told


def test_where_numbers_may_be_others_what_was_told_stays_and_models_go_on(left, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("service.local_service.VERSION", "99.0")
    with serve(base_model.load("tiny"), copied(left, "killed", tmp_path), exact=False) as service:
        assert service.replayed == 3 and not service.others and not caplog.records
        models = service.models.engine.names()
        before = Talk(service.url).both(f"{models[0]}:1", f"{models[0]}:2")
    base = base_model.load("tiny")
    base.model.draw(1)
    with serve(base, shutil.copytree(left / "killed", tmp_path / "other"), exact=False) as service:
        assert [each.split(" of ")[0] for each in service.others] == ["request 1", "request 2"]
        assert "2 of the requests that were done again gave other numbers" in caplog.text
        talk = Talk(service.url)
        assert talk.both(f"{models[0]}:1", f"{models[0]}:2") == before
        assert service.models.engine.info(models[0]).step == 1
        assert b'"step:max":2' in talk.bytes((talk.loss(models[0], 3), talk.step(models[0], 4))[1])
        folder = shutil.copytree(tmp_path / "other", tmp_path / "later")
    with serve(base, folder) as service:  # the next start is exact again, from the new numbers
        assert not service.others and service.models.engine.info(models[0]).step == 2


@pytest.mark.parametrize(
    ("name", "told"), [("first", "a model of before can't go on"), ("killed", "can't be done again")]
)
def test_lower_limits_than_before_are_told_as_such(left, tmp_path, name, told):
    found = refused(copied(left, name, tmp_path), engine_limits=EngineLimits(rank=2))
    assert told in found and "LoRA rank is 4; at most 2 is allowed here" in found


def test_a_damaged_state_is_refused(left, tmp_path):
    folder = copied(left, "first", tmp_path)
    (state,) = (folder / "journal" / "states").iterdir()
    whole = (state / STATE).read_bytes()
    (state / STATE).write_bytes(whole.replace(b'"orders"', b'"orderz"'))
    assert "is not what was written" in refused(folder)
    (state / STATE).write_bytes(whole)
    tensors = next(state.rglob("optimizer.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\1")
    assert "optimizer.safetensors is damaged" in refused(folder)


def test_a_missing_file_of_the_journal_is_refused_and_a_torn_end_is_not(left, tmp_path, caplog):
    folder = copied(left, "killed", tmp_path)
    (journal,) = (folder / "journal").glob("*.journal")
    os.truncate(journal, journal.stat().st_size - 3)
    with serve(base_model.load("tiny"), folder) as service:
        assert service.replayed == 3
    assert "of a record that was not yet promised" in caplog.text
    state = next((folder / "journal" / "states").iterdir())
    (folder / "journal" / f"{state.name}.journal").unlink()
    assert f"lacks the file {state.name}.journal" in refused(folder)


def test_a_second_service_in_a_folder_is_told_who_has_it(left, tmp_path):
    folder = copied(left, "first", tmp_path)
    with serve(base_model.load("tiny"), folder) as service:
        told = refused(folder)
        assert f"is in use by a service (process {os.getpid()} on " in told and service.url in told
