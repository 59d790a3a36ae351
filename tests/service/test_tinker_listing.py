"""What there is: sessions, models and checkpoints, their files and addresses, times to live, deletion."""

import io
import tarfile
import time
from email.utils import parsedate_to_datetime

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("google.protobuf")

import httpx
from safetensors.torch import load
from tinker_calls import Calls, quick_learner

from service.local_service import serve
from service.tinker.tinker_endpoint import TinkerLimits

FILES = {"adapter_config.json", "adapter_model.safetensors"}


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    limits = TinkerLimits(hold=0.2)
    with serve(quick_learner(), tmp_path_factory.mktemp("store"), limits=limits) as service:
        yield Calls(service.url)


def test_lists_go_by_limit_and_offset(calls):
    session = calls.session()
    models = [calls.model(session, number, lora_config={"rank": 2}) for number in range(3)]
    told = calls.get("training_runs", limit=2)
    assert [each["training_run_id"] for each in told["training_runs"]] == [models[2], models[1]]
    assert told["cursor"] == {
        "limit": 2,
        "offset": 0,
        "total_count": calls.get("training_runs")["cursor"]["total_count"],
    }
    assert calls.get("training_runs", limit=1, offset=2)["training_runs"][0]["training_run_id"] == models[0]
    paths = [calls.save(models[0], number, f"s{number}") for number in (1, 2, 3)]
    told = calls.get("checkpoints", limit=2)
    assert [each["tinker_path"] for each in told["checkpoints"]] == [paths[2], paths[1]]
    assert told["cursor"]["total_count"] >= 3
    assert [each["checkpoint_id"] for each in calls.get(f"training_runs/{models[0]}/checkpoints")["checkpoints"]] == [
        "weights/s1", "weights/s2", "weights/s3",
    ]  # fmt: skip
    assert calls.get("sessions", limit=1) == {"sessions": [session]}
    assert calls.get(f"sessions/{session}")["training_run_ids"] == models
    for query in ({"limit": -1}, {"limit": "x"}, {"offset": "1e9"}):
        assert "must be an integer from 0" in calls.get("checkpoints", 400, **query)["error"]


def test_what_a_user_notes_comes_back(calls):
    session = calls.session(user_metadata={"team": "red"}, display_name="The first")
    model = calls.model(session, lora_config={"rank": 2}, user_metadata={"renderer_name": "role_colon"})
    path = calls.save(model, 1, "one", user_metadata={"batch": "7"}, ttl_seconds=3600)
    run = calls.get(f"training_runs/{model}")
    assert run["user_metadata"] == {"renderer_name": "role_colon"} and run["base_model"] == "tiny"
    assert run["last_checkpoint"]["tinker_path"] == path and run["last_sampler_checkpoint"] is None
    assert run["last_checkpoint"]["user_metadata"] == {"batch": "7"} and run["last_checkpoint"]["expires_at"]
    assert calls.get(f"sessions/{session}")["user_metadata"] == {"team": "red"}
    assert calls.get(f"sessions/{session}")["display_name"] == "The first"
    new = calls.post("load_weights", path=path, optimizer=True, session_id=session, model_seq_id=1,
                     user_metadata={"from": "one"})  # fmt: skip
    made = calls.result(new["request_id"])["model_id"]
    assert made == f"{session}:train:1" and calls.get(f"training_runs/{made}")["user_metadata"] == {"from": "one"}
    told = calls.post("create_session", 400, user_metadata={"a": 1})["error"]
    assert told == "user_metadata is {'a': 1}; it must be an object of strings, of whole characters"


def test_archives_and_files_are_peft_s(calls):
    model = calls.model(lora_config={"rank": 2})
    for kind, path in (
        ("weights", calls.save(model, 1, "one")),
        ("sampler_weights", calls.save(model, 2, "one", True)),
    ):
        assert path == f"tinker://{model}/{kind}/one"
        place = f"training_runs/{model}/checkpoints/{kind}/one"
        redirect = httpx.get(f"{calls.url}/{place}/archive", headers={"Accept": "application/gzip"})
        assert redirect.status_code == 302
        assert parsedate_to_datetime(redirect.headers["expires"]).timestamp() > time.time() + 600
        packed = httpx.get(redirect.headers["location"])
        assert packed.headers["content-type"] == "application/gzip"
        with tarfile.open(fileobj=io.BytesIO(packed.content)) as archive:
            assert set(archive.getnames()) == FILES
            weights = archive.extractfile("adapter_model.safetensors").read()
        told = calls.get(f"{place}/external_weights_urls")
        assert set(told["urls"]) == FILES and told["expires"].endswith("Z")
        files = {name: httpx.get(url).content for name, url in told["urls"].items()}
        assert files["adapter_model.safetensors"] == weights
        assert b'"peft_type": "LORA"' in files["adapter_config.json"]
        tensors = load(weights)
        assert tensors and all(2 in each.shape for each in tensors.values())
        assert "has no file 'adapter_state.json'" in calls.get(f"{place}/files/adapter_state.json", 404)["error"]
        calls.get(f"{place}/files/..%2Fone%2Fadapter_config.json", 404)


def test_addresses_of_files_need_no_key_and_nothing_else_does_without(tmp_path):
    with serve(quick_learner(), tmp_path, key="tml-secret") as service:
        calls = Calls(service.url)
        calls.get("training_runs", 401)
        calls._http.headers["X-API-Key"] = "tml-secret"
        model = calls.model(lora_config={"rank": 2})
        calls.save(model, 1, "one")
        place = f"training_runs/{model}/checkpoints/weights/one"
        location = httpx.get(f"{calls.url}/{place}/archive", headers={"X-API-Key": "tml-secret"}).headers["location"]
        assert httpx.get(location).status_code == 200
        bare, _, query = location.partition("?")
        until = int(query.split("&")[0].removeprefix("until="))
        for wrong in (bare, location[:-1], location.replace(f"until={until}", f"until={until + 1}"),
                      location.replace("/archive/adapter.tar.gz", "/files/adapter_config.json"),
                      f"{calls.url}/training_runs?{query}"):  # fmt: skip
            assert httpx.get(wrong).status_code == 401
        assert httpx.get(bare, headers={"X-API-Key": "tml-secret"}).status_code == 200


def test_checkpoints_go_when_they_are_deleted_or_their_time_is_over(calls):
    model = calls.model(lora_config={"rank": 2})
    for number, name in enumerate(("kept", "short", "gone"), 1):
        calls.save(model, number, name)
    place = f"training_runs/{model}/checkpoints/weights"
    assert calls.send("PUT", f"{place}/short/ttl", 204, json={"ttl_seconds": 1}) is None
    assert calls.send("PUT", f"{place}/kept/ttl", 204, json={"ttl_seconds": 1}) is None
    assert calls.send("PUT", f"{place}/kept/ttl", 204, json={"ttl_seconds": None}) is None
    assert calls.send("DELETE", f"{place}/gone", 204) is None
    calls.send("DELETE", f"{place}/gone", 404)
    deadline = time.time() + 30
    while len(found := calls.get(f"training_runs/{model}/checkpoints")["checkpoints"]) > 1 and time.time() < deadline:
        pass
    assert [(each["checkpoint_id"], each["expires_at"]) for each in found] == [("weights/kept", None)]
    for path in (f"{place}/short/archive", f"{place}/short/external_weights_urls", f"{place}/gone/files/x"):
        assert "there is no checkpoint" in calls.get(path, 404)["error"] or path.endswith("/x")
    assert "must be an integer from 1" in calls.send("PUT", f"{place}/kept/ttl", 400, json={"ttl_seconds": 0})["error"]
    for method in ("POST", "DELETE"):  # a status of 500 or more would be tried again for minutes
        assert "publishes nothing" in calls.send(method, f"{place}/kept/publish", 400)["error"]


def test_paths_stay_in_the_store(calls):
    model = calls.model(lora_config={"rank": 2})
    for number, name in enumerate(("../../x", "a/b", ".hidden", "", "a\0b", "é", "x" * 201), 1):
        asked = calls.post("save_weights", model_id=model, seq_id=number, path=name)
        assert "a checkpoint's name has" in calls.result(asked["request_id"])["error"]
    for path in ("tinker://../../etc/passwd", "tinker://../weights/x", "file:///etc/passwd", "tinker://a/weights/../x"):
        asked = calls.post("load_weights", model_id=model, seq_id=(number := number + 1), path=path, optimizer=False)
        told = calls.result(asked["request_id"])["error"]
        assert "it must be tinker://" in told or "there is no checkpoint" in told or "a checkpoint's name has" in told
    calls.get(f"training_runs/{model}/checkpoints/..%2F..%2Fetc/passwd/archive", 404)
    calls.get(f"training_runs/{model}/checkpoints/other/name/archive", 404)


def test_sessions_are_found_by_name_note_and_state(calls):
    first = calls.session(display_name="Blue whale one", user_metadata={"colour": "blue"}, project_id="p1")
    second = calls.session(display_name="Blue whale two", user_metadata={"colour": "blue"})
    calls.model(first, lora_config={"rank": 2})
    calls.save(f"{first}:train:0", 1, "one")
    calls.send("POST", f"sessions/{second}/finish", 204, json={"reason": {"type": "errored"}, "detail": "no luck"})

    def found(**asked):
        return [each["session_id"] for each in calls.post("sessions/search", **asked)["sessions"]]

    assert found(display_name="whale BLUE") == [second, first]
    assert found(user_metadata={"colour": "blue"}, statuses=[{"type": "active"}]) == [first]
    assert found(display_name="whale", statuses=[{"type": "client_finished", "reasons": ["errored"]}]) == [second]
    assert found(display_name="whale", statuses=[{"type": "client_finished", "reasons": ["success"]}]) == []
    assert found(display_name="whale", project_ids=["p1"]) == [first]
    assert found(session_id=first, display_name="nothing") == [first]
    page = calls.post("sessions/search", display_name="whale", limit=1)
    assert [each["session_id"] for each in page["sessions"]] == [second]
    (told,) = calls.post("sessions/search", display_name="whale", limit=1, cursor=page["next_cursor"])["sessions"]
    assert (told["session_id"], told["checkpoints_count"], told["project_id"]) == (first, 1, "p1")
    assert told["checkpoint_storage_bytes"] > 0 and told["status"] == {"type": "active"}
    for asked in ({"limit": 0}, {"statuses": ["x"]}, {"cursor": {"last_created_at": "x", "last_session_id": "y"}}):
        calls.post("sessions/search", 400, **asked)
