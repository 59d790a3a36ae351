"""The page of a task in Chromium: first paint, 10,000 lines of a log, events to 20 tabs. Needs playwright and chromium.

    python bench/tune_page.py FOLDER [--pictures DIR]

FOLDER is a task's folder; lines are added to its log.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
LINES, TABS, TRIES = 10_000, 20, 5
_WATCH = """() => { window.longest = 0; new PerformanceObserver((list) => { for (const one of list.getEntries())
  window.longest = Math.max(window.longest, one.duration); }).observe({type: "longtask", buffered: true}); }"""
# Scrolls through the log to its very first line, and returns the longest time between two frames.
_SCROLL = """async () => { const log = document.querySelector(".log"); 
  let last = performance.now(), worst = 0, still = 0;
  while (still < 40) { const top = log.scrollTop; log.scrollTop = top - 400; await new Promise(requestAnimationFrame);
    const now = performance.now(); worst = Math.max(worst, now - last); last = now;
    still = log.scrollTop === 0 && top === 0 && !log.querySelector(".earlier") ? still + 1 : 0; }
  return [worst, log.querySelectorAll("p").length, log.scrollHeight]; }"""


def seconds_of(process: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def first_paints(browser, address: str) -> list[float]:
    """Return the milliseconds from the request to the first contentful paint, of pages that know nothing."""
    found = []
    for _ in range(TRIES):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(address)
        page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
        found.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        context.close()
    return found


def add_lines(folder: Path, count: int, text: str) -> None:
    with (folder / ".tune" / "events.jsonl").open("a") as stream:
        for number in range(count):
            line = {
                "time": time.time(),
                "node": "",
                "text": f"{text} {number}: train_loss 1.234, tokens 5,678 a second",
            }
            stream.write(json.dumps(line) + "\n")


def shows(page: Page, text: str) -> None:
    page.locator("#log p", has_text=text).first.wait_for(timeout=60_000)


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=Path)
    words = parser.parse_args()
    add_lines(words.folder, LINES, "step")
    serve = [sys.executable, str(ROOT / "tune.py"), "serve", str(words.folder), "--port", "0"]
    process = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic"]
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        paints = first_paints(browser, address)
        print(f"first contentful paint: median {statistics.median(paints):.0f} ms of {TRIES} ({paints})")
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.evaluate(_WATCH)
        worst, lines, height = page.evaluate(_SCROLL)
        print(f"{lines} lines of the log scrolled through, {height} px: longest frame {worst:.0f} ms, longest task "
              f"{page.evaluate('window.longest'):.0f} ms")  # fmt: skip
        together = browser.new_context()  # tabs of one browser, which has six connections to a server
        tabs = [together.new_page() for _ in range(TABS)]
        for tab in tabs:
            tab.goto(address)
        before, begin = seconds_of(process.pid), time.monotonic()
        time.sleep(10)
        idle = (seconds_of(process.pid) - before) / (time.monotonic() - begin)
        begin = time.monotonic()
        add_lines(words.folder, 1, "told to all")
        for tab in tabs:
            shows(tab, "told to all 0")
        taken = time.monotonic() - begin
        print(f"{TABS} tabs: all show a new line after {taken:.2f} s; the server idles at {idle:.1%} of a core")
        if words.pictures:
            words.pictures.mkdir(parents=True, exist_ok=True)
            for width in (1280, 390):
                tab = browser.new_page(viewport={"width": width, "height": 900})
                tab.goto(address)
                for one in tab.locator("details").all():
                    one.evaluate("one => one.open = true")
                tab.screenshot(path=words.pictures / f"page-{width}.png", full_page=True)
        browser.close()
    process.terminate()
    process.wait()


if __name__ == "__main__":
    main()
