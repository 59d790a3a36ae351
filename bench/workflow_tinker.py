"""Rehearse the preset `tinker` of prompt distillation against a service of this machine that speaks the same protocol.

    python bench/workflow_tinker.py                       # 5,000 answers, 1,000 optimizer steps, five checkpoints
    python bench/workflow_tinker.py --answer-tokens 160 --batch 64   # as hosted; many hours here

A model of random weights answers under the hosted model's name, so the workflow, its scripts and its checks can't tell.
Other than hosted are: tokens of an answer, rows of a batch (both above), questions of a few letters; and quality is
not held to anything. The numbers of examples, steps, checkpoints, rows of the split and files are those of the preset.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_STARTS = 120.0


def serve(folder: Path, name: str) -> "tuple[subprocess.Popen[bytes], str]":
    """Serve random weights under a model's name; returns the process and its address."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["--model", "tiny", "--name", name, "--port", "0", "--folder", str(folder), "--rank-max", "128"]
    with (folder / "out").open("wb") as output:
        process = subprocess.Popen([sys.executable, str(ROOT / "serve.py"), *words], stdout=output, stderr=output)
    until = time.monotonic() + _STARTS
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+", (folder / "out").read_text()):
            return process, found[0]
        time.sleep(0.1)
    process.kill()
    raise SystemExit((folder / "out").read_text())


def changed(path: Path, preset: str, **settings: object) -> None:
    """Give settings of a preset other values, in the file where they stand."""
    lines = path.read_text().split("\n")
    inside = False
    for number, line in enumerate(lines):
        if match := re.match(r" {0,2}(\w+):(?: *\{| *$)", line):
            inside = match[1] == preset
        for name, value in settings.items() if inside else ():
            lines[number] = re.sub(rf"\b{name}: [^,}}]+", f"{name}: {value}", lines[number])
    path.write_text("\n".join(lines))


def main() -> None:
    """Run it, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answer-tokens", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder, removed at the end)")
    arguments = parser.parse_args()
    workflow = [sys.executable, str(ROOT / "workflow.py")]
    with tempfile.TemporaryDirectory() as temporary:
        place = (arguments.folder or Path(temporary)).resolve()
        project = place / "project"
        subprocess.run([*workflow, "new", "prompt_distillation", str(project)], check=True, stdout=subprocess.DEVNULL)
        questions = [{"setting": "hall", "dialogue": f"{number}?", "background": ""} for number in range(500)]
        (project / "data" / "short.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
        changed(project / "workflow.yaml", "tinker", data="data/short.jsonl", near=0.0, saves=0.5)
        changed(
            project / "data_generation_config.yaml", "tinker", answer_tokens=arguments.answer_tokens, cut_off="keep"
        )
        changed(project / "training_config.yaml", "tinker", batch=arguments.batch, falls=0.0001)
        began = time.monotonic()
        process, address = serve(place / "service", "Qwen/Qwen3-8B")
        try:
            environment = os.environ | {"TINKER_BASE_URL": address, "TINKER_API_KEY": "tml-local"}
            run = [*workflow, "run", str(project), "--preset", "tinker"]
            with (place / "run.out").open("wb") as output:
                code = subprocess.run(run, env=environment, stdout=output, stderr=subprocess.STDOUT).returncode
        finally:
            process.terminate()
            process.wait()
        sys.stderr.write((place / "run.out").read_text()[-6000:])
        if code:
            sys.exit(code)
        names = ("data/teacher.jsonl", "data/train.jsonl", "data/held_out.jsonl", "training_logs/metrics.jsonl",
                 "checkpoints/checkpoints.jsonl")  # fmt: skip
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = {
            "rows": {name: (project / name).read_bytes().count(b"\n") for name in names},
            "checkpoints": [json.loads(line)["step"] for line in (project / names[-1]).read_text().splitlines()],
            "savings": json.loads((project / "results" / "savings.json").read_text()),
            "seconds": round(time.monotonic() - began), "processor_seconds": round(used.ru_utime + used.ru_stime),
        }  # fmt: skip
        sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
