"""The answer as JSON, for programs. Keys are only added to a schema version; docs/doctor.md lists them."""

import json

from doctor.finding import Change, Finding
from doctor.redaction import redact
from doctor.report.answer import Answer, Answered, Proved, Remedy, confidence_word

SCHEMA = 1
_STATUS = {0: "healthy", 1: "findings", 3: "unknown"}


def as_json(answer: Answer) -> str:
    """Return the answer as indented JSON without credentials."""
    told = {
        "schema": SCHEMA,
        "status": _STATUS[answer.exit_code],
        "exit_code": answer.exit_code,
        "about": answer.about,
        "knowledge_date": answer.diagnosis.knowledge_date,
        "findings": [_finding(one) for one in answer.findings],
        "ruled_out": answer.diagnosis.ruled_out,
        "notes": [*answer.notes, *answer.diagnosis.notes],
        "give_next": answer.give_next,
        "facts": answer.facts,
    }
    return json.dumps(_clean(told), indent=2, ensure_ascii=False) + "\n"


def _clean(value: object) -> object:
    """Return plain values with all texts redacted, keys of mappings too."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(str(key)): _clean(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    return value


def _finding(one: Answered) -> dict[str, object]:
    finding: Finding = one.finding
    return {
        "id": finding.id,
        "branch": finding.branch,
        "level": finding.level,
        "confidence": round(finding.confidence, 3),
        "confidence_word": confidence_word(finding.confidence),
        "verdict": finding.verdict,
        "evidence": finding.evidence,
        "why": finding.why,
        "culprits": finding.culprits,
        "changes": [_remedy(remedy) for remedy in one.remedies],
        "not_this": finding.not_this,
        "check": finding.check,
        "gpu": finding.gpu,
        "source": finding.source,
        "remembered": one.remembered,
    }


def _remedy(remedy: Remedy) -> dict[str, object]:
    change: Change = remedy.change
    return {
        "kind": change.kind,
        "text": change.text,
        "requirements": change.requirements,
        "remove": change.remove,
        "holds": change.holds,
        "environment": dict(change.environment),
        "commands": {tool: list(lines) for tool, lines in remedy.commands.items()},
        "disturbs": change.disturbs,
        "proof": _proof(remedy.proof),
    }


def _proof(proof: Proved | None) -> dict[str, object] | None:
    if proof is None:
        return None
    return {
        "result": proof.word,
        "text": proof.text,
        "log": proof.log,
        "seconds": proof.seconds,
        "resolved": proof.resolved,
    }
