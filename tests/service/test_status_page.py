"""The status page and the metrics: the numbers of a service that has done something, safely written."""

import re
from html.parser import HTMLParser

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import httpx

from constants.version import VERSION
from llm import base_model
from service.local_service import serve


class Reader(HTMLParser):
    """Reads a page strictly enough: each tag is closed, nothing comes from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "img", "iframe", "link", "object"), tag
        for name, value in attributes:
            assert not name.startswith("on") and not (name in ("src", "href") and "//" in value), (name, value)
        if tag not in ("meta", "line", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_data(self, data):
        self.text += data


def post(url: str, path: str, /, **fields):
    return httpx.post(f"{url}/api/v1/{path}", json=fields, timeout=60)


SAMPLE = re.compile(r'[a-z_]+(\{[a-z]+="(?:[^"\\\n]|\\.)*"(,[a-z]+="(?:[^"\\\n]|\\.)*")*\})? -?\d+(\.\d+)?(e-?\d+)?')


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The page and the metrics of a service that has trained, sampled and refused."""
    with serve(base_model.load("tiny"), tmp_path_factory.mktemp("store"), 'a "b" <c>', gap_seconds=1.0) as service:
        url, name = service.url, service.models.name
        session = post(url, "create_session", tags=[], sdk_version="0").json()["session_id"]
        made = post(url, "create_model", session_id=session, model_seq_id=0, base_model=name, lora_config={"rank": 3})
        model = post(url, "retrieve_future", request_id=made.json()["request_id"]).json()["model_id"]
        tokens = {"data": [66, 67], "dtype": "int64"}
        weights = {"data": [1, 1], "dtype": "float32"}
        datum = {
            "model_input": {"chunks": [{"type": "encoded_text", "tokens": [65, 66]}]},
            "loss_fn_inputs": {"target_tokens": tokens, "weights": weights},
        }
        for number, (path, more) in enumerate(
            [("forward_backward", {"forward_backward_input": {"data": [datum], "loss_fn": "cross_entropy"}}),
             ("optim_step", {"adam_params": {"learning_rate": 1e-3}}), ("save_weights", {"path": "one"}),
             ("optim_step", {"adam_params": {"learning_rate": -1}})], 1,
        ):  # fmt: skip
            asked = post(url, path, model_id=model, seq_id=number, **more).json()
            post(url, "retrieve_future", request_id=asked["request_id"])
        chat = {"model": name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "temperature": 0}
        answer = httpx.post(f"{url}/v1/chat/completions", json={**chat, "stop": None}, timeout=60).json()
        assert httpx.post(f"{url}/v1/chat/completions", json={**chat, "model": "<b>no"}).status_code == 404
        assert httpx.put(f"{url}/v1/aliases/newest", json={"model": name}).status_code == 200
        page, metrics = httpx.get(url).text, httpx.get(f"{url}/metrics")
        assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        yield model, answer["usage"]["completion_tokens"], page, metrics.text


def test_the_page_shows_what_goes_on(told):
    model, _, page, _ = told
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert 'a "b" <c>' in reader.text and "ready" in reader.text
    assert model in reader.text and re.search(r"models1of 64 · 1 session", re.sub(r"\s*\n\s*", "", reader.text))
    assert "newest" in reader.text.split("Aliases")[1].split("Newest errors")[0]
    assert "learning_rate is -1" in reader.text and "there is no model '<b>no'" in reader.text
    assert '<meta http-equiv="refresh"' in page


def test_the_metrics_are_prometheus_text(told):
    _, sampled, _, text = told
    values: dict[str, float] = {}
    kinds: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kinds[name] = line.split()
        elif not line.startswith("# HELP "):
            assert SAMPLE.fullmatch(line), line
            name, _, value = line.rpartition(" ")
            assert name not in values
            values[name] = float(value)
    for name in values:
        family = re.sub(r"\{.*", "", name)
        assert family in kinds or kinds[re.sub(r"_(bucket|sum|count)$", "", family)] == "histogram"
        assert kinds.get(family) != "counter" or family.endswith("_total")
    assert values[f'menagerie_info{{model="a \\"b\\" <c>",version="{VERSION}"}}'] == 1
    assert values["menagerie_ready"] == 1 and values["menagerie_trained_tokens_total"] == 2
    assert values["menagerie_journal_trouble"] == 0
    assert values["menagerie_sampled_tokens_total"] == sampled > 0
    assert values["menagerie_adapters"] == values["menagerie_checkpoints"] == values["menagerie_sessions"] == 1
    route = 'route="/v1/chat/completions"'
    assert values[f'menagerie_http_requests_total{{{route},method="POST",status="200"}}'] == 1
    assert values[f'menagerie_http_requests_total{{{route},method="POST",status="404"}}'] == 1
    assert values[f'menagerie_http_request_duration_seconds_bucket{{{route},le="+Inf"}}'] == 2
    assert values['menagerie_errors_total{fault="user"}'] == 2 and values["process_resident_memory_bytes"] > 10**7
