"""Aliases: names that are pointed at the newest checkpoint, over HTTP, in order, and after a start."""

import threading

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("openai")

import httpx
import openai
from service_models import scripted, serving

from service.openai.aliases import Aliases
from service.sampling.served_models import ServedModel, ServedModels
from storage.errors import OutputError

HI = [{"role": "user", "content": "Hi"}]
OLD, NEW = "tinker://run/sampler_weights/1", "tinker://run/sampler_weights/2"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    file = tmp_path_factory.mktemp("aliases") / "aliases.json"
    with serving(scripted(b"AB"), names=("base", OLD, NEW), aliases=file) as service:
        yield service


def put(served, name, target, base="/v1") -> httpx.Response:
    return httpx.put(f"{served.url}{base}/aliases/{name}", json={"model": target}, timeout=60)


def fingerprint(served, model: str) -> str:
    answer = served.client().chat.completions.create(model=model, messages=HI)
    assert answer.model == model
    return answer.system_fingerprint


def test_a_name_is_pointed_at_one_checkpoint_and_then_at_another(served):
    assert put(served, "newest", OLD).json() == {"id": "newest", "object": "alias", "model": OLD}
    assert fingerprint(served, "newest") == f"version of {OLD}"
    assert put(served, "newest", NEW, "/oai/api/v1").status_code == 200
    assert fingerprint(served, "newest") == f"version of {NEW}"
    text = served.client().completions.create(model="newest", prompt="A").choices[0].text
    assert text == "B"
    assert httpx.get(f"{served.url}/v1/aliases/newest").json()["model"] == NEW
    assert {"id": "newest", "object": "alias", "model": NEW} in httpx.get(f"{served.url}/v1/aliases").json()["data"]
    models = {model.id: model for model in served.client().models.list()}
    assert list(models)[:3] == ["base", OLD, NEW] and models["newest"].root == NEW
    assert served.client().models.retrieve("newest").root == NEW
    gone = httpx.delete(f"{served.url}/keys/k/v1/aliases/newest").json()
    assert gone == {"id": "newest", "object": "alias", "deleted": True}
    with pytest.raises(openai.NotFoundError, match="there is no model 'newest'"):
        fingerprint(served, "newest")
    assert httpx.delete(f"{served.url}/v1/aliases/newest").status_code == 404


def test_names_may_look_like_those_of_a_hub(served):
    put(served, "org/policy", "base")
    assert fingerprint(served, "org/policy") == "version of base"
    assert served.client().models.retrieve("org/policy").id == "org/policy"


@pytest.mark.parametrize(
    ("name", "body", "status", "says"),
    [
        ("x", {"model": "tinker://run/sampler_weights/3"}, 404, "there is no model 'tinker://run/sampler_weights/3'"),
        ("x", {}, 400, "model is null; it must be the name of a model"),
        ("x", {"model": "there"}, 400, "an alias itself: give the model that it stands for"),
        ("base", {"model": OLD}, 409, "'base' is a model itself"),
        ("a b", {"model": OLD}, 400, "can't be used"),
        ("tinker://run/sampler_weights/9", {"model": OLD}, 400, "no address"),
    ],
)
def test_what_can_not_be_pointed(served, name, body, status, says):
    put(served, "there", OLD)
    response = httpx.put(f"{served.url}/v1/aliases/{name}", json=body)
    assert response.status_code == status and says in response.json()["error"]["message"], response.text
    assert fingerprint(served, "there") == f"version of {OLD}"


def test_a_request_keeps_what_the_name_stood_for_when_it_came(served, monkeypatch):
    """The model's thread is held before the request begins; meanwhile the name is pointed elsewhere."""
    put(served, "moved", OLD)
    begin, held, answers = threading.Event(), threading.Event(), []

    def hold() -> None:
        held.set()
        begin.wait(60)

    served.loop.between_steps(hold)
    assert held.wait(60)
    came = threading.Event()
    submit = served.loop.submit_together
    monkeypatch.setattr(served.loop, "submit_together", lambda *given: (submit(*given), came.set())[0])
    asks = threading.Thread(target=lambda: answers.append(fingerprint(served, "moved")))
    asks.start()
    assert came.wait(60)
    assert put(served, "moved", NEW).status_code == 200
    begin.set()
    asks.join(60)
    assert answers == [f"version of {OLD}"] and fingerprint(served, "moved") == f"version of {NEW}"


def test_an_alias_of_a_model_that_is_gone_says_so(served):
    served.loop.models.put(ServedModel("brief", "v"))
    put(served, "left", "brief")
    served.loop.models.remove("brief")
    with pytest.raises(openai.NotFoundError, match="there is no model 'brief' any more, for which 'left' stands"):
        fingerprint(served, "left")


def test_aliases_outlive_the_process(tmp_path):
    file, models = tmp_path / "store" / "aliases.json", ServedModels(ServedModel("a", "1"), ServedModel("b", "2"))
    first = Aliases(models, file)
    first.point("x", "a")
    first.point("x", "b")
    first.point("y", "a")
    first.remove("y")
    again = ServedModels()  # whose models come back later
    assert Aliases(again, file).all() == {"x": "b"}
    again.put(ServedModel("b", "2"))
    assert again.find("x").version == "2"
    file.write_text('{"aliases": [')
    with pytest.raises(OutputError, match=r"aliases\.json can't be read as the service's aliases"):
        Aliases(ServedModels(), file)


def test_what_can_not_be_written_is_not_changed(tmp_path):
    file = tmp_path / "aliases.json"
    models = ServedModels(ServedModel("a", "1"))
    aliases = Aliases(models, file / "below")
    file.write_text("")
    with pytest.raises(OutputError):
        aliases.point("x", "a")
    assert aliases.all() == {}
