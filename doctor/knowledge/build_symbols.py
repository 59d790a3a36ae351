"""Make the table of symbols from the text of releases: `python -m doctor.knowledge.build_symbols`.

Of wheels only the Python files are fetched, of those only what no release before had. An interrupted run goes on where
it was.
"""

import argparse
import json
import logging
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import Version

from constants import ARTIFACTS_DIR
from doctor.knowledge.assemble import assemble
from doctor.knowledge.build_metadata import best_file, version_of
from doctor.knowledge.index import File, Index, IndexProblem
from doctor.knowledge.packed import write
from doctor.knowledge.release_files import Summaries
from doctor.knowledge.symbol_tables import FORMAT, Gathered, pack
from doctor.knowledge.symbols import SHIPPED

logger = logging.getLogger(__name__)

YEARS = 4.5
_LARGEST = 4 << 20
# A project with more releases than this is read at the first and the last of each minor release; of very many minors
# at the first alone, or at the first of some; of few minors at some between, too.
_MANY = 80
# Of projects with thousands of files fewer are read.
_LARGE = {"torch": 16, "vllm": 24, "sglang": 24, "openai": 110, "gradio": 40, "axolotl": 24, "diffusers": 30}
# What is larger is not read where it comes as source alone, which has to be fetched whole.
_LARGEST_SOURCE = 12 << 20
_NAMES = """
peft trl accelerate datasets httpx pyarrow tensorboard setuptools tokenizers safetensors deepspeed transformers
huggingface-hub starlette fastapi gradio-client bitsandbytes unsloth unsloth-zoo torch fsspec flash-attn
sentence-transformers llamafactory openai diffusers gradio
"""
PROJECTS = tuple(_NAMES.split())


def chosen(files: Iterable[File], today: date, years: float = YEARS, many: int = _MANY) -> dict[Version, File]:
    """Return the releases to read, the oldest first, with the file of each that is read.

    Args:
        files: the project's files on the index.
        today: the day from which the years are counted.
        years: how far back releases are read.
        many: how many releases are all read; of more, some are left out.
    """
    by_version: dict[Version, list[File]] = {}
    for file in files:
        version = version_of(file)
        if version is not None and not version.is_prerelease:
            by_version.setdefault(version, []).append(file)
    since = date.fromordinal(today.toordinal() - round(years * 365.25)).isoformat()
    recent = sorted(one for one in by_version if min(file.uploaded or "9" for file in by_version[one])[:10] >= since)
    if len(recent) > many:
        minors: dict[tuple[int, int], list[Version]] = {}
        for version in recent:
            minors.setdefault((version.major, version.minor), []).append(version)
        kept = {one for versions in minors.values() for one in (versions[0], versions[-1])}
        if len(kept) > many * 1.25:
            kept = {recent[-1], *(versions[0] for versions in minors.values())}
        if len(kept) > many * 1.25:
            listed = sorted(kept)
            kept = {recent[-1], *(listed[number * len(listed) // many] for number in range(many))}
        others = [one for one in recent if one not in kept]
        more = min(len(others), many - len(kept)) if len(kept) < many / 2 else 0
        recent = sorted({*kept, *(others[number * len(others) // more] for number in range(more))})
    found = {version: best_file(by_version[version]) for version in recent or sorted(by_version)[-1:]}
    return {
        version: file
        for version, file in found.items()
        if file.is_wheel or (file.size <= _LARGEST_SOURCE and file.name.endswith((".tar.gz", ".tgz")))
    }


def gather(project: str, index: Index, kept: Path, today: date) -> Gathered:
    """Return a project over its releases; releases that cannot be read are left out, with a word.

    Args:
        project: its name.
        index: the index that has it.
        kept: folder of what was read.
        today: the day from which the years are counted.

    Raises:
        IndexProblem: if the index cannot be reached or doesn't know the project.
    """
    releases = chosen(index.files(project), today, many=_LARGE.get(project, _MANY))
    before = kept / f"{project}.json"
    if before.exists():
        old = json.loads(before.read_text(encoding="utf-8"))
        if old["format"] == FORMAT and old["asked"] == [str(version) for version in releases]:
            return Gathered(**old["gathered"])
    summaries = Summaries(kept / f"{project}.sqlite")
    made = Gathered()
    read: dict[str, Any] = {}
    tops: set[str] = set()
    for version, file in releases.items():
        files = summaries.files(project, str(version))
        if files is None:
            try:
                summaries.read(project, str(version), file, index)
            except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as problem:
                logger.warning("%s %s could not be read: %s", project, version, problem)
                continue
            files = summaries.files(project, str(version)) or {}
        # Most files are in the release before, too.
        read = {key: read[key] if key in read else summaries.summary(key) for key in set(files.values()) if key}
        offered = assemble(files, read.get)
        if not offered.names:
            continue
        made.add(str(version), offered)
        tops |= {module for module in offered.names if "." not in module}
    made.tops = sorted(tops)
    asked = [str(version) for version in releases]
    kept.mkdir(parents=True, exist_ok=True)
    before.write_text(json.dumps({"format": FORMAT, "asked": asked, "gathered": asdict(made)}), encoding="utf-8")
    return made


def main(arguments: list[str] | None = None, tell: Callable[[str], object] = logger.info) -> int:
    """Make the table that is shipped.

    Args:
        arguments: of the command line.
        tell: takes lines for the person at the terminal.

    Returns:
        The exit code: 0 if all projects are in it and it is small enough.
    """
    parser = argparse.ArgumentParser(prog="python -m doctor.knowledge.build_symbols", description=__doc__)
    parser.add_argument("--index-url", help="the index; default: what uv and pip use, else PyPI")
    parser.add_argument("--projects", nargs="+", default=PROJECTS, help="names of projects")
    parser.add_argument("--output", type=Path, default=SHIPPED, help="the table; - for only reading releases")
    parser.add_argument("--kept", type=Path, default=ARTIFACTS_DIR / "doctor" / "building" / "symbols")
    given = parser.parse_args(arguments)
    today = datetime.now(UTC).date()
    index = Index(given.index_url, given.kept / "index")
    gathered: dict[str, Gathered] = {}
    problems = 0
    for name in map(canonicalize_name, given.projects):
        try:
            gathered[name] = gather(name, index, given.kept, today)
        except IndexProblem as problem:
            tell(str(problem))
            problems += 1
            continue
        tell(f"{name}: {len(gathered[name].versions)} releases, {len(gathered[name].modules)} modules")
    if str(given.output) == "-":
        return int(bool(problems))
    members = pack(gathered, today.isoformat())
    write(given.output, members)
    size = given.output.stat().st_size
    tell(f"{given.output}: {size / 1e6:.2f} MB")
    return int(bool(problems) or size > _LARGEST)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
