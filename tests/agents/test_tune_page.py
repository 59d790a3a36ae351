"""The page of a run: by its requests, and as a person uses it in a browser."""

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tuning_tasks import ROOT, make_task, tune

from agents.events import Events

pytest.importorskip("langgraph")
pytest.importorskip("starlette")
httpx = pytest.importorskip("httpx")

CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic"]
KEY = "a-key-of-sixteen-and-more"


class Served:
    """A page that is served by a process of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tune.py"), "serve", str(folder), "--port", "0", *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address.startswith("http://"), self.address

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def form_of(page: str) -> dict[str, str]:
    """Return what the form of the question sends: its hidden fields."""
    return dict(
        re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page[page.index('class="question"') :])
    )


def test_an_answer_is_taken_once_and_only_from_this_page(tmp_path):
    folder = make_task(tmp_path)
    tune("run", folder=folder)  # as far as the first question
    task = folder / "task.yaml"
    text = task.read_text()
    task.write_text(f"{text}max_tokens: 7\n")
    with Served(folder) as served, httpx.Client(base_url=served.address, timeout=60) as client:
        page = client.get("/")
        assert page.status_code == 200 and "Round 1: train on 12 rows?" in page.text
        assert "script-src 'self'" in page.headers["content-security-policy"]
        # What has ended the run is told where the person looks, and the run may go on.
        with client.stream("GET", "/events") as events:
            changes = (line for line in events.iter_lines() if line.startswith("data: "))
            while "stopped by an error" not in (now := client.get("/part/now").text):
                next(changes)
        assert "max_tokens of task.yaml has changed from 128 to 7" in now and ">Go on</button>" in now
        task.write_text(text)
        form = form_of(page.text)
        sent = {**form, "decision": "finish"}
        for wrong, status in (({"token": "x"}, 403), ({"digest": "x"}, 409), ({"question": "main-0099-training"}, 409),
                              ({"decision": "trian"}, 409)):  # fmt: skip
            refused = client.post("/answer", data={**sent, **wrong})
            assert refused.status_code == status, wrong
        assert not list((folder / ".tune" / "answers").glob("*.json"))
        assert client.get("/", headers={"host": "evil.example"}).status_code == 421
        assert client.get("/part/nothing").status_code == 404
        assert client.get("/rows?part=test&find=snow", headers={"hx-request": "true"}).text.count("<tr>") == 2
        assert "measuring the base model" in client.get("/part/costs").text
        for strange in (f"/rows?page={'9' * 5000}", f"/log?before={'9' * 5000}", "/rows?page=-1&part=x&find=%00"):
            assert client.get(strange).status_code == 200, strange[:20]
        unknown = client.post("/explain", data={**form, "row": "--version"}, headers={"hx-request": "true"})
        assert "there is no row --version" in unknown.text and "Why?" not in client.get("/").text
        assert client.post("/explain", data={"row": "1"}).status_code == 403
        assert client.get("/thread/nothing/").status_code == 404 and 'href="/thread/' not in client.get("/").text
        assert 'hx-get="/part/now"' in client.get("/thread/main/").text
        task.write_text("schema: 1\nname: [\n")
        broken = client.get("/")
        assert broken.status_code == 500 and "task.yaml:3: no YAML" in broken.text
        task.write_text(text)
        with client.stream("GET", "/events") as events:  # begins with the marks of all parts, which the page has too
            told = next(line for line in events.iter_lines() if line.startswith("data: "))
        marks = json.loads(told.removeprefix("data: "))
        assert set(marks) == {"now", "question", "rounds", "costs", "changes", "log"}
        assert f'data-marks="{html.escape(json.dumps(marks))}"'.replace("&quot;", "&#34;") in client.get("/").text
        assert client.post("/answer", data=sent).status_code == 303
        assert client.post("/answer", data=sent).status_code == 409
        late = client.post("/answer", data=sent, headers={"hx-request": "true"})
        assert "answered already" in late.text and 'class="question"' not in late.text
    (answer,) = (folder / ".tune" / "answers").glob("*.json")
    assert json.loads(answer.read_text())["values"] == {"decision": "finish"}
    # The token outlives the server: a page that was open before a restart is still taken for one of ours.
    with Served(folder) as served:
        late = httpx.post(f"{served.address}answer", data=sent, timeout=60)
        assert late.status_code == 409, late.text  # 403 is what a page of others gets


def test_others_need_a_key(tmp_path):
    folder = make_task(tmp_path)
    for words, told in ((("--host", "0.0.0.0"), "give --key too"), (("--key", "short"), "16 are the least"),
                        (("--port", "99999"), "--port 99999 is no port")):  # fmt: skip
        done = tune("serve", ".", *words, folder=folder)
        assert done.returncode == 2 and told in done.stderr
    with Served(folder, "--host", "0.0.0.0", "--key", KEY) as served:
        address = served.address.replace("0.0.0.0", "127.0.0.1")
        bare = address.partition("?")[0]
        with httpx.Client(follow_redirects=True, timeout=60) as client:
            assert client.get(bare).status_code == 401
            entered = client.get(address)
            assert entered.status_code == 200 and "key=" not in str(entered.url)
            assert client.get(bare).status_code == 200


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium")
def test_a_person_decides_in_the_browser(tmp_path):
    """Begin, answer by keyboard, see another tab follow, lose the server, and end with a model."""
    playwright = pytest.importorskip("playwright.sync_api")
    folder = make_task(tmp_path)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=CHROMIUM,
        )
        page, other = browser.new_page(viewport={"width": 390, "height": 844}), browser.new_page()
        for each in (page, other):
            each.set_default_timeout(120_000)
            each.on("pageerror", lambda error: pytest.fail(f"the page has an error: {error}"))
        with Served(folder) as served:
            port = served.address.rsplit(":", 1)[1].strip("/")
            page.goto(served.address)
            other.goto(served.address)
            page.route("**/part/question", lambda route: route.abort(), times=1)  # asked for again
            page.get_by_role("button", name="Begin").click()
            page.get_by_role("heading", name="Round 1: train on 12 rows?").wait_for()
            other.get_by_role("heading", name="Round 1: train on 12 rows?").wait_for()
            page.get_by_label("end here with the best").focus()
            page.keyboard.press("ArrowUp")  # back to the first choice
            page.keyboard.press("Enter")
            other.get_by_role("heading", name="2 of 4 epochs are done. Go on?").wait_for()
            os.kill(served.process.pid, signal.SIGKILL)
            served.process.wait()
            for each in (page, other):
                each.get_by_text("The server of this page does not answer").wait_for()
        with Served(folder, "--port", port):  # both pages come back by themselves
            other.get_by_text("The server of this page does not answer").wait_for(state="hidden")
            page.get_by_label("measure what there is").focus()  # another one answers what is under these hands
            other.get_by_label("measure what there is").check()
            other.get_by_role("button", name="Answer").click()
            page.get_by_role("heading", name="Round 1 is better than the base model").wait_for()
            assert page.evaluate("document.activeElement.id") == "question"  # from where Tab leads into the next one
            left, wide = (page.locator(one).bounding_box() for one in (".asked", ".wide"))
            assert wide["x"] <= left["x"] and left["x"] + left["width"] <= wide["x"] + wide["width"]
            page.get_by_role("button", name="Answer").dblclick()
            page.get_by_role("heading", name="Underfitting: change the settings?").wait_for()
            page.get_by_label("end here with the best").check()
            page.get_by_role("button", name="Answer").click()
            page.get_by_text("it is over", exact=True).wait_for()
            assert page.title() == "colours · it is over"
            # Who reads earlier lines of the log keeps them, and has the new ones when back at its end.
            told, log = Events(folder / ".tune" / "events.jsonl"), "document.querySelector('.log')"
            for number in range(60):
                told.add("", f"line {number} of many")
            page.get_by_text("line 59 of many").wait_for(state="attached")
            page.evaluate(f"{log}.scrollTop = 0")
            told.add("", "told meanwhile")
            other.get_by_text("told meanwhile").wait_for(state="attached")
            assert page.get_by_text("told meanwhile").count() == 0 and page.evaluate(f"{log}.scrollTop") < 200
            page.evaluate(f"{log}.scrollTop = {log}.scrollHeight")
            page.get_by_text("told meanwhile").wait_for(state="attached")
            page.get_by_text(f"The best is round 1. Its model is in {folder / 'model'}").wait_for()
            page.get_by_text("Answers that changed most").click()
            assert "it is green" in page.inner_text("#examples-1")
            assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        browser.close()
    assert (folder / "model" / "memory.json").exists()
    assert len(list((folder / ".tune" / "answers").glob("*.json"))) == 4


SAILOR = """schema: 1
name: sailor
description: Answer as a sailor would.
model: tiny
samples: samples.jsonl
test_share: 0.5
metric: chrf
max_tokens: 4
budget: {rounds: 1}
training: {epochs: 1, learning_rate: 3e-3, plot_at_end: off, sample_count: 0}
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium")
def test_a_row_is_explained_where_it_is_read(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    rows = [
        {"prompt": f"Is it <b>{place}</b>?", "completion": f"Aye, {place}"}
        for place in ("far", "near", "low", "up", "here", "there")
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(SAILOR)
    assert tune("new", "task.yaml", folder=tmp_path).returncode == 0
    folder = tmp_path / "sailor"
    assert tune("run", "--yes", folder=folder).returncode == 0
    with playwright.sync_playwright() as started, Served(folder) as served:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.set_default_timeout(120_000)
        page.on("console", lambda told: told.type == "error" and pytest.fail(f"the browser refuses: {told.text}"))
        page.goto(served.address)
        page.locator("select[name=part]").select_option("test")
        asked = json.loads((folder / "data" / "test.jsonl").read_text().splitlines()[0])
        page.locator("#rows").get_by_text(asked["messages"][0]["content"]).wait_for()
        page.locator("#rows").get_by_role("button", name="Why?").first.click()
        page.locator("#explained article").wait_for()
        told = page.inner_text("#explained")
        assert asked["messages"][0]["content"] in told and asked["id"] in told and "base model" in told
        assert page.locator("#explained [class^=loss-]").count() and page.locator("#explained [class^=lowers-]").count()
        colour = page.locator("#explained .loss-4").first.evaluate("one => getComputedStyle(one).backgroundColor")
        assert colour not in ("rgba(0, 0, 0, 0)", "transparent")
        assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        browser.close()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium")
def test_threads_are_a_click_apart_and_an_answer_takes_the_worker_along(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    folder = make_task(tmp_path)
    tune("run", folder=folder)  # as far as the first question
    assert tune("fork", ".", "1", "other", folder=folder).returncode == 0
    with playwright.sync_playwright() as started, Served(folder) as served:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        page, main = browser.new_page(viewport={"width": 390, "height": 844}), browser.new_page()
        for each in (page, main):
            each.set_default_timeout(120_000)
            each.on("pageerror", lambda error: pytest.fail(f"the page has an error: {error}"))
            each.goto(served.address)
        page.get_by_role("link", name="other").click()
        page.get_by_text("The thread main has the task now").wait_for()
        page.get_by_role("button", name="Go on").click()
        page.get_by_role("heading", name="Round 1: train on 12 rows?").wait_for()
        assert page.url == f"{served.address}thread/other/"
        main.get_by_label("train now").check()  # while the worker waits for an answer of the other thread
        main.get_by_role("button", name="Answer").click()
        main.get_by_role("heading", name="2 of 4 epochs are done. Go on?").wait_for()
        page.get_by_label("end here with the best").check()
        page.get_by_role("button", name="Answer").click()
        page.get_by_text("it is over", exact=True).wait_for()
        assert main.get_by_text("waits for you", exact=True).count() == 1
        page.reload()
        assert page.get_by_text("it is over", exact=True).count() == 1
        assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        browser.close()
