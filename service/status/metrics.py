"""A service's numbers in Prometheus' text format (version 0.0.4)."""

from collections.abc import Iterator, Sequence

from service.status.overview import Overview
from service.web.front import READY
from service.web.request_counts import BUCKETS

_Value = int | float
_Labels = tuple[tuple[str, str], ...]


def metrics_text(now: Overview) -> str:
    """Write all metrics of a service."""
    return "".join(f"{line}\n" for line in _lines(now))


def _lines(now: Overview) -> Iterator[str]:
    name, version = ("model", now.name), ("version", now.version)
    yield from _one("menagerie_info", "gauge", "The service: its model and version.", 1, (name, version))
    yield from _one("menagerie_ready", "gauge", "Whether requests are answered.", int(now.state == READY))
    yield from _one("menagerie_journal_trouble", "gauge", "Whether its disk takes no requests.", int(bool(now.trouble)))
    yield from _one("menagerie_sampled_tokens_total", "counter", "Tokens that were sampled.", now.sampled_tokens)
    yield from _one("menagerie_trained_tokens_total", "counter", "Tokens that were trained on.", now.trained_tokens)
    yield from _one("menagerie_samples_running", "gauge", "Requests that are sampled now.", now.sampling)
    waiting = [((("kind", "sampling"),), now.waiting_sampling), ((("kind", "training"),), now.waiting_training)]
    yield from _many("menagerie_requests_waiting", "gauge", "Requests that wait for the model.", waiting)
    yield from _one("menagerie_promises", "gauge", "Answers that are kept for clients, or to come.", now.promises)
    yield from _one("menagerie_sessions", "gauge", "Sessions of clients.", now.sessions)
    loaded = sum(row.steps is not None for row in now.rows)
    yield from _one("menagerie_adapters", "gauge", "Models that are trained.", loaded)
    yield from _one("menagerie_checkpoints", "gauge", "Checkpoints that are kept.", now.checkpoints)
    yield from _one("menagerie_checkpoint_bytes", "gauge", "Bytes of checkpoints on disk.", now.checkpoint_bytes)

    counts = now.counts
    yield from _one("menagerie_http_requests_open", "gauge", "Requests that are being answered.", counts.open)
    requests = [((("route", route), ("method", method), ("status", str(status))), count)
                for (route, method, status), count in sorted(counts.requests.items())]  # fmt: skip
    yield from _many("menagerie_http_requests_total", "counter", "Requests that have ended.", requests)
    failures = [((("fault", whose),), counts.failures.get(whose, 0)) for whose in ("user", "server")]
    yield from _many("menagerie_errors_total", "counter", "Errors that clients were told, by whose fault.", failures)
    yield from _durations(now)

    process = now.process
    yield from _one("process_start_time_seconds", "gauge", "When it was started, since 1970.", round(now.started, 3))
    seconds = round(process.processor_seconds, 3)
    yield from _one("process_cpu_seconds_total", "counter", "Processor time of all threads.", seconds)
    yield from _one("process_resident_memory_bytes", "gauge", "Memory that is in use.", process.memory)
    yield from _one("process_open_fds", "gauge", "Open file descriptors.", process.files)
    yield from _one("process_max_fds", "gauge", "How many there may be.", process.files_most)
    yield from _one("process_threads", "gauge", "Threads.", process.threads)


def _durations(now: Overview) -> Iterator[str]:
    name = "menagerie_http_request_duration_seconds"
    yield from _head(name, "histogram", "How long requests took; questions for promises are held.")
    for route, duration in sorted(now.counts.durations.items()):
        total = 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), duration.buckets, strict=True):
            total += count
            yield _line(f"{name}_bucket", (("route", route), ("le", bound)), total)
        yield _line(f"{name}_sum", (("route", route),), round(duration.seconds, 6))
        yield _line(f"{name}_count", (("route", route),), total)


def _head(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"


def _one(name: str, kind: str, meaning: str, value: _Value, labels: _Labels = ()) -> Iterator[str]:
    yield from _many(name, kind, meaning, [(labels, value)])


def _many(name: str, kind: str, meaning: str, values: Sequence[tuple[_Labels, _Value]]) -> Iterator[str]:
    yield from _head(name, kind, meaning)
    for labels, value in values:
        yield _line(name, labels, value)


def _line(name: str, labels: _Labels, value: _Value) -> str:
    told = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    return f"{name}{{{told}}} {value}" if told else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
