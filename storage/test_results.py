"""test.json of a run: what `--test` measured last, and by what."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from storage.files import write_json
from storage.saved_run import RunDamagedError

_SCHEMA_VERSION = 1
_NAME = "test.json"


@dataclass(frozen=True)
class TestResult:
    """What a test has measured.

    Attributes:
        trainer: class name of the trainer.
        run_id: name of the run.
        time: time of the test, UTC, such as `2026-11-28T06:10:00Z`.
        seconds: seconds that the pass took.
        epoch: epoch of the weights; None where the run noted none.
        weights_sha256: SHA-256 of the model.safetensors that was tested.
        samples: number of samples; None where they were not counted.
        metrics: means over the samples by name: `test_loss`, `test_accuracy`; None for one that was not finite.
        intervals: 95 % intervals of these means over samples, where there were values of each sample.
        validation: numbers of the run's validation in that epoch, by the names of `metrics`.
        changed: settings of the command line that differ from the run's.
        settings: settings of the test by name, as config.ini has them.
        data: fingerprint of the test data; None where it has no index.
        environment: command, commit, versions and device.
    """

    __test__ = False  # it is none of pytest's

    trainer: str
    run_id: str
    time: str
    seconds: float
    epoch: int | None
    weights_sha256: str
    samples: int | None
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    validation: dict[str, float]
    changed: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] | None = None
    environment: dict[str, Any] = field(default_factory=dict)


def write_test_result(run: Path, result: TestResult) -> Path:
    """Write test.json into a run's folder, in place of that of an earlier test.

    Args:
        run: folder of the run.
        result: what was measured.

    Returns:
        The file.
    """
    write_json(run / _NAME, {"schema_version": _SCHEMA_VERSION, **asdict(result)}, durable=True)
    return run / _NAME


def read_test_result(run: Path) -> TestResult | None:
    """Read what the last test of a run measured; None where it was never tested.

    Args:
        run: folder of the run.

    Raises:
        RunDamagedError: test.json can't be read.
    """
    file = run / _NAME
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content.pop("schema_version")
        if version != _SCHEMA_VERSION:
            raise RunDamagedError(f"{file} has schema version {version}, this program reads {_SCHEMA_VERSION}.")
        content["intervals"] = {name: (low, high) for name, (low, high) in content["intervals"].items()}
        known = {entry.name for entry in fields(TestResult)}  # a later program may have written more
        return TestResult(**{name: value for name, value in content.items() if name in known})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunDamagedError.of(file, error) from error
