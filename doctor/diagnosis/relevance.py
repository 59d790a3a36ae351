"""How much a fault of the environment has to do with the failure that is asked about."""

import re

from doctor.case import Case

# What a finding that is sure keeps of its confidence, by where the failure names what it is about.
_IN_ERROR, _IN_FRAMES, _IN_TEXT, _NOWHERE = 1.0, 0.75, 0.5, 0.36


def confidence_for(case: Case, confidence: float, *names: str) -> float:
    """Return the confidence with which a fault of the environment explains a case.

    Args:
        case: what is diagnosed.
        confidence: how sure it is that the fault is there.
        names: modules and distributions that the fault is about.

    Returns:
        The same where nothing failed; less where the failure names none of them.
    """
    failure = case.failure
    if failure is None:
        return confidence
    words = [re.escape(name).replace("\\-", "[-_.]").replace("_", "[-_.]") for name in names if name]
    if not words:
        return confidence * _NOWHERE
    pattern = re.compile(rf"(?<![\w-])({'|'.join(words)})(?![\w-])", re.IGNORECASE)
    if any(pattern.search(raised.line) for raised in failure.raised) or any(map(pattern.search, failure.lines)):
        return confidence * _IN_ERROR
    frames = [frame for raised in failure.raised for frame in raised.frames]
    if any(frame.module and pattern.fullmatch(frame.module) for frame in frames):
        return confidence * _IN_FRAMES
    return confidence * (_IN_TEXT if pattern.search(failure.text) else _NOWHERE)
