"""Pins in the PEP 723 block of a script."""

import re
import tomllib

from doctor.remedy.refusal import CannotEdit
from doctor.remedy.toml_array import find_array, with_pin

# As PEP 723 has it; the last line is apart.
_BLOCK = re.compile(r"(?m)^# /// script[ \t]*\r?$\n(?P<content>(^#(| .*)$\n?)+?)^# ///[ \t]*\r?$")


def edit_script(text: str, pins: tuple[str, ...], reason: str) -> str:
    """Return a script whose PEP 723 block holds pins; a script without a block gets one.

    Args:
        text: the script.
        pins: requirements.
        reason: becomes a comment beside each.

    Raises:
        CannotEdit: its block is none, or there are several.
    """
    end = "\r\n" if "\r\n" in text else "\n"
    blocks = list(_BLOCK.finditer(text))
    if len(blocks) > 1:
        raise CannotEdit("it has several PEP 723 blocks, and may have one")
    if not blocks:
        return _with_block(text, pins, reason, end)
    block = blocks[0]
    lines = block["content"].splitlines()
    content = "".join(f"{line[2:]}\n" for line in lines)
    try:
        before = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise CannotEdit(f"its PEP 723 block is no TOML: {error}") from None
    if "dependencies" not in before:
        content = f"dependencies = [\n]\n{content}"
    for pin in pins:
        array = find_array(content, "", "dependencies")
        if array is None:
            raise CannotEdit("the dependencies of its PEP 723 block are not a plain list of strings")
        content = with_pin(content, array, pin, reason, add=True)
    try:
        tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise CannotEdit(f"the edited block would not read as TOML ({error})") from None
    return text[: block.start("content")] + _commented(content, end) + text[block.end("content") :]


def _commented(content: str, end: str) -> str:
    return "".join(f"# {line}".rstrip() + end for line in content.splitlines())


def _with_block(text: str, pins: tuple[str, ...], reason: str, end: str) -> str:
    listed = "".join(f'    "{pin}",  # {reason}\n' for pin in pins)
    block = f"# /// script{end}{_commented(f'dependencies = [{chr(10)}{listed}]{chr(10)}', end)}# ///{end}"
    lines = text.splitlines(keepends=True)
    head = 0
    while head < min(2, len(lines)) and (lines[head].startswith("#!") or re.match(r"#.*coding[:=]", lines[head])):
        head += 1
    gap = end if lines[head:] and lines[head].strip() else ""
    return "".join(lines[:head]) + block + gap + "".join(lines[head:])
