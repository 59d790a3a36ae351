"""Models and files that are newer than the program which reads them: model types, architectures, tokenizer files."""

import re
from collections.abc import Iterator
from dataclasses import replace

from packaging.specifiers import SpecifierSet

from doctor.case import Case
from doctor.diagnosis.mechanism import Known, Said, importer_of, signs
from doctor.diagnosis.missing_names import describe
from doctor.diagnosis.moves import Move, in_spans, into, needs, python_for
from doctor.failure.facts import Raised
from doctor.finding import Change, Finding
from doctor.knowledge.symbols import Span

# Who says so, how, and the branch of the answer. {type} is a model type, {class} an architecture's class.
_TOLD = (
    re.compile(r"model type [`'\"](?P<type>[\w.-]+)[`'\"] but Transformers does not recognize"),
    re.compile(r"KeyError: '(?P<key>[a-z][a-z0-9_-]+)'"),
    re.compile(r"(?:AttributeError|ImportError)[^\n]*transformers[^\n]*'(?P<class>[A-Z]\w+For\w+)'"),
    re.compile(
        r"(?:No model type with name|model_type) [`'\"](?P<type>[\w-]+)[`'\"] (?:is|was) not (?:found|supported)"
    ),
)
# Words that may be model types: "starcoder2", "qwen3_moe".
_MODELS = re.compile(r"\b[a-z]+[a-z0-9]*\d[a-z0-9_]*\b")
_AUTO = re.compile(r"configuration_auto|CONFIG_MAPPING|AutoConfig|auto/|model_type")


def find_unknown_model_types(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find model types that the transformers that is here does not know yet."""
    seen = set()
    text = case.failure.text if case.failure else ""
    for line, raised in signs(case):
        for pattern in _TOLD:
            for found in pattern.finditer(line):
                groups = found.groupdict()
                kind = groups.get("type") or groups.get("key")
                if not kind or kind in seen:
                    continue
                spans = knowledge.symbols.model_types("transformers", kind)
                bare = bool(groups.get("key")) and not _AUTO.search(text)
                if bare and not _is_newer(case, raised, kind, spans):
                    continue
                if groups.get("key") and spans == ():
                    continue
                seen.add(kind)
                sign = line.splitlines()[0].strip()
                if spans is None:
                    yield _without_table(case, kind, sign, 0.7 if groups.get("type") else 0.5)
                else:
                    said = _finding(case, knowledge, kind, spans, sign)
                    if bare and not _MODELS.fullmatch(kind) and isinstance(said, Finding):
                        said = replace(said, confidence=0.6)
                    yield said


def _is_newer(case: Case, raised: Raised | None, kind: str, spans: tuple[Span, ...] | None) -> bool:
    """Return whether a bare key is a model type that the transformers that is here lacks.

    Where no version is told, a plain word ("clip") is a key of the user's own.
    """
    version = case.environment.version("transformers")
    if not spans or any(span.from_start for span in spans):
        return False
    if importer_of(raised) not in (None, "transformers", "vllm", "sglang", "trl", "peft"):
        return False
    return not in_spans(spans, version) if version else bool(_MODELS.fullmatch(kind))


def _without_table(case: Case, kind: str, sign: str, confidence: float) -> Finding:
    version = case.environment.version("transformers")
    here = f"transformers {version}" if version else "the transformers that is here"
    raised = f"transformers>{version}" if version else "transformers"
    return Finding(
        "model-type-unknown",
        "runtime/data_format",
        "error",
        confidence,
        f"{here} does not know the model type {kind}.",
        (sign,),
        "The model is newer than the library that reads it, or brings code of its own.",
        (
            Change("pin", "Raise transformers to a release that names the model.", (raised,)),
            Change("code", "Or load it with trust_remote_code=True, if its folder holds code that you trust."),
        ),
        not_this="Download the model again: its files are fine",
        culprits=("transformers",),
        source="the message itself",
    )


def needed(case: Case, knowledge: Known) -> str:
    """Return the range of transformers that model types named in the text need, "" where none does."""
    text = case.failure.text if case.failure else ""
    firsts = []
    for word in {found[0] for found in _MODELS.finditer(text)}:
        spans = knowledge.symbols.model_types("transformers", word) or ()
        firsts += [span.first for span in spans[:1] if not span.from_start]
    return f">={max(firsts)}" if firsts else ""


def _finding(case: Case, knowledge: Known, kind: str, spans: tuple[Span, ...], sign: str) -> Said:
    version = case.environment.version("transformers")
    here = f"transformers {version}" if version else "the transformers that is here"
    if version and in_spans(spans, version):
        return f"transformers {version} knows the model type {kind}: its version is not at fault"
    if not spans:
        return Finding(
            "model-type-of-nobody",
            "runtime/data_format",
            "error",
            0.6,
            f"No release of transformers until {knowledge.symbols.date} knows the model type {kind}.",
            (sign,),
            "The model brings its own code, belongs to another library, or its config.json names the type wrongly.",
            (
                Change(
                    "code",
                    "Load it with trust_remote_code=True, if the model's folder holds its code and you trust it.",
                ),
                Change("code", "Or load it with the library that its card names."),
            ),
            culprits=("transformers",),
            source=f"symbols of {knowledge.symbols.date}",
        )
    moves: list[Move] = into(case, knowledge, "transformers", spans)
    holding = [
        f"{who} asks for transformers{one}"
        for who, one in needs(case, knowledge, "transformers")
        if not any(SpecifierSet(str(one)).contains(span.first) for span in spans)
    ]
    return Finding(
        "model-type-too-new",
        "runtime/data_format",
        "error",
        0.9 if version else 0.8,
        f"{here} does not know the model type {kind}, which came {describe(spans[0])}.",
        (sign, f"transformers knows {kind} {describe(spans[0])} (symbols of {knowledge.symbols.date})", *holding),
        "The model is newer than the library that reads it.",
        (*python_for(case, knowledge, "transformers", spans), *(move.change for move in moves)),
        not_this="Download the model again: its files are fine",
        check=f"python -c \"from transformers import AutoConfig; AutoConfig.for_model('{kind}')\"",
        culprits=("transformers",),
        source=f"symbols of {knowledge.symbols.date}",
        provable=f"from transformers import AutoConfig; AutoConfig.for_model('{kind}')",
    )
