"""Takes from lines of a text what a terminal, a logger, a web page or a chat put around them."""

import html
import json
import re
from dataclasses import dataclass

_COLOUR = re.compile(
    r"\x1b\[[0-?]{0,20}[ -/]{0,4}[@-~]|\x1b\][^\x07\x1b\n]{0,500}(?:\x07|\x1b\\)|"
    r"\x1b[@-Z\\-_=>]|[\x00\x08\x7f\ufeff\u200b]"
)
_SPELT_COLOUR = re.compile(r"(?:\\u001b|\\x1b|\\033|\\e|\^\[|\u241b)\[[0-9;]{0,12}m", re.IGNORECASE)
_BARE_COLOUR = re.compile(r"\[(?:0|1|2|3|4|7|22|39|49|[39][0-7]|[0-9]{1,3}(?:;[0-9]{1,3}){1,4})m")
_TAGS = re.compile(r"</?(?:pre|code|p|br|span|div|summary|details|font|b|samp)\b[^<>\n]{0,200}>", re.IGNORECASE)
_QUOTES = str.maketrans(
    {
        "“": '"',
        "”": '"',
        "\u2018": "'",
        "\u2019": "'",
        "\uff1a": ": ",
        "\u00a0": " ",
        "\u202f": " ",
        "\u3000": " ",
        "\x85": "\n",
        "\u2028": "\n",
        "\x0b": "\n",
        "\x0c": "\n",
    }
)
_BAR = re.compile(
    r"\d{1,3}%\s?[|▏▎▍▌▋▊▉█━─#]|\bit/s\]?|\bs/it\]?|\d(?:\.\d+)?\s?[kMG]?B/s\b|━{5,}|\b\d{1,3}% (?:Completed|\d+/\d+)"
)
_WIDEST = 20_000  # characters of a line that are read

_LEVEL = r"(?:TRACE|DEBUG|INFO|NOTICE|WARNING|WARN|ERROR|CRITICAL|FATAL|EXCEPTION)"
_TIME = r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?"
# What loggers and launchers put before a line, each tried again until none fits. `p`: the process that it is of.
_PREFIXES = tuple(
    re.compile(pattern)
    for pattern in (
        r"\[?(?P<p>[Rr]ank ?\d{1,5})\]?: ?",
        r"\[(?P<p>(?:rank|RANK ?|Rank ?)\d{1,5})\] ?",
        rf"{_TIME} \| {_LEVEL} {{0,8}}\| [\w.:<>]{{1,160}} - ",
        r"\[(?P<p>(?:default|local_rank|worker)_?\d{1,5})\]:? ?",
        r"\((?P<p>[\w:.\-+]{0,80}(?: [\w=:.\-]{1,40}){0,4}[ (]?(?:pid|actor_id)=[\w]{1,40}(?:, ?ip=[\w.:]{1,40})?)\) ?",
        rf"{_LEVEL}:? {{1,4}}(?:\d{{4}}-)?\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d{{1,6}})? \[[\w./\\\-]{{1,120}}:\d{{1,6}}\] "
        rf"?",
        r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{3,9} {1,8}\d{1,9} [\w./\-]{1,160}:\d{1,6}\] ?",
        rf"{_TIME} ?- [\w.\-]{{1,120}} - {_LEVEL} - ",
        rf"\[{_TIME}(?: (?:TP|DP|PP|EP|CP)\d{{1,4}}(?:[ _](?:TP|DP|PP|EP|CP)\d{{1,4}}){{0,3}})?\] ?",
        rf"\[{_TIME}\] ?\[\d{{1,9}}\] ?\[{_LEVEL}\] ?",
        rf"{_TIME} ?(?:\[{_LEVEL}\] ?|{_LEVEL} {{1,4}}(?=\S))?",
        rf"\[{_LEVEL}\|[\w.]{{1,80}}:\d{{1,6}}\] (?:{_TIME}) >> ",
        rf"\[{_LEVEL}\] \[[\w./\-]{{1,80}}:\d{{1,6}}:[\w<>]{{1,60}}\] ?",
        r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S{1,80} [\w.\-@/]{1,80}(?:\[\d{1,9}\])?: ?",
        r"\[pod/[\w.\-/]{1,160}\] ?",
        r"(?:stderr|stdout|STDERR|STDOUT)(?: [FP])?[:|] ?",
        r"##\[error\]",
        r"#\d{1,4} \d{1,6}\.\d{1,3} ",
    )
)
# Prefixes that are so plain that a traceback must follow them, or that most lines must have them.
_PLAIN = tuple(
    re.compile(pattern)
    for pattern in (
        r" ?(?P<p>\d{1,5}): ",
        r"(?P<p>[A-Za-z][\w.\-]{0,80}) {0,40}\| ?",
        r"\d{1,6}\.\d{2,3} ",
        r"\[(?P<p>[\w.\-]{1,40})\] ?",
        r"(?P<p>[a-z][\w\-]{0,40}\d): ",
    )
)
_STARTS = re.compile(
    r"\s{0,40}(?:\+ )?(?:(?:Exception Group )?Traceback \(most recent|File \"|[A-Za-z_.]{1,80}(?:Error|Exception)\b)"
)


@dataclass(frozen=True)
class Line:
    """A line without what was put around it.

    Args:
        number: its place in the text.
        text: the line, indented as it was printed.
        process: what is said of the process that wrote it; None where nothing is.
        logged: whether a logger's or launcher's prefix stood before it.
    """

    number: int
    text: str
    process: str | None = None
    logged: bool = False


def plain_text(text: str) -> str:
    """Return a text without colours, progress bars, and what a notebook, a web page or a log's JSON put around it."""
    text = _of_notebook(text)
    text = re.sub(r"\r{1,3}\n", "\n", _COLOUR.sub("", text)).replace("\r", "\n")
    if "[" in text and re.search(r"(?:\\u001b|\\x1b|\\033|\^\[|\u241b)\[", text):
        text = _SPELT_COLOUR.sub("", text)
    if "[0m" in text or "[39m" in text:
        text = _BARE_COLOUR.sub("", text)
    if "Traceback (most recent call last):\\n" in text:
        text = text.replace("\\n", "\n").replace('\\"', '"').replace("\\'", "'")
        text = re.sub(r"\"(?:, ?\"[^\n]{0,500})?\}$", "", text, flags=re.MULTILINE)
    if "Traceback (most recent call last): File" in text:
        text = "\n".join(map(_unfolded, text.split("\n")))
    if "](file:" in text:
        text = re.sub(r"\[(\d{1,7})\]\(file:[^()\n]{1,400}\)", r"\1", text)  # numbers of lines in a notebook's editor
    text = text.translate(_QUOTES)
    if "&" in text and re.search(r"&(?:lt|gt|quot|amp|#39|#x27|nbsp);", text):
        text = html.unescape(text)
    if "</" in text or "<br" in text or "<pre" in text or "<details" in text:
        text = _TAGS.sub("\n" if "<br" in text else "", text)
    return "\n".join(_without_bars(text.split("\n")))


def _unfolded(line: str) -> str:
    """Return a traceback that lost its line ends with them again."""
    head, mark, body = line.partition("Traceback (most recent call last): File")
    if not mark or len(line) > _WIDEST:
        return line
    frames = re.sub(r' {1,8}(?=File "[^"]{1,400}", line \d)', "\n  ", " File" + body)
    frames = re.sub(r"(\bline \d{1,7}, in [\w<>.]{1,80}) (?=\S)", r"\1\n    ", frames)
    *others, last = frames.split("\n")
    error = list(re.finditer(r" (?=(?:[a-z_]\w*\.)*[A-Z]\w{1,60}(?:Error|Exception|Interrupt|Exit)\b(?::|$))", last))
    if error:
        last = f"{last[: error[0].start()]}\n{last[error[0].end() :]}"
    lines = (
        [f"Traceback (most recent call last):{others[0].rstrip()}", *others[1:]]
        if others
        else ["Traceback (most recent call last):"]
    )
    return "\n".join(f"{head}{part}" for part in [*lines, *last.split("\n")])


def _without_bars(lines: list[str]) -> list[str]:
    """Return lines with the last one of each run of progress bars."""
    kept: list[str] = []
    bar = False
    for line in lines:
        was, bar = bar, bool(_BAR.search(line[:400])) and "Traceback (most" not in line and "rror" not in line
        if bar and was:
            kept.pop()
        kept.append(line[:_WIDEST] if len(line) > _WIDEST else line)
    return kept


def _of_notebook(text: str) -> str:
    """Return what the cells of a notebook printed, or the lines of a container's log; other texts as they are."""
    start = text[:2000].lstrip()
    if start.startswith("{") and '"cells"' in text and len(text) < 20_000_000:
        try:
            cells = json.loads(text)["cells"]
            outputs = [output for cell in cells for output in cell.get("outputs", ())]
            return "\n".join("\n".join(_printed(output)) for output in outputs)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return text
    if start.startswith('{"log":'):
        return "".join(map(_logged, text.splitlines(keepends=True)))
    return text


def _printed(output: dict[str, object]) -> list[str]:
    """Return the lines of an output of a notebook's cell."""
    lines = output.get("traceback") or output.get("text") or ()
    return [str(line).removesuffix("\n") for line in lines] if isinstance(lines, list) else [str(lines)]


def _logged(line: str) -> str:
    """Return the text of a line of a container's log."""
    try:
        return str(json.loads(line)["log"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return line


def clean_lines(text: str) -> list[Line]:
    """Return the lines of a plain text without prefixes of loggers and launchers, quoting and fences.

    Args:
        text: what `plain_text` returned.

    Returns:
        A Line for each; of a fence an empty one.
    """
    lines = [_unquoted(line) for line in text.split("\n")]
    cut = [_without_prefixes(number, line) for number, line in enumerate(lines)]
    filled = sum(1 for line in cut if line.text.strip())
    for pattern in _PLAIN:
        fits = [pattern.match(line.text) for line in cut]
        common = sum(1 for found in fits if found) > 0.6 * filled and filled > 2
        for at, found in enumerate(fits):
            if found and (common or _STARTS.match(cut[at].text, found.end())):
                name = found.groupdict().get("p") or cut[at].process
                again = _without_prefixes(at, cut[at].text[found.end() :])
                cut[at] = Line(at, again.text, again.process or name, True)
            elif found and at and cut[at - 1].logged and cut[at - 1].process == found.groupdict().get("p", ""):
                cut[at] = Line(at, cut[at].text[found.end() :], found["p"], True)
    return cut


def _unquoted(line: str) -> str:
    """Return a line of a quotation without its marks; nothing of a fence."""
    if line[:1] in (">", "`", "~", " ", "#", "│", "|"):
        if re.match(r">(?:> ?)*(?!>)", line) and not line.startswith(">>>"):
            line = re.sub(r"^(?:> ?){1,8}", "", line)
        stripped = line.strip()
        if stripped.startswith(("```", "~~~")) and "`" not in stripped.strip("`~"):
            rest = stripped.strip("`~")
            return rest if " " in rest else ""
        if stripped.startswith("`") and stripped.count("`") % 2:
            line = line.replace("`", "", 1)
    return line[:-3] if line.endswith("```") else line


def _without_prefixes(number: int, line: str) -> Line:
    """Return a line without what loggers and launchers put before it."""
    process, logged = None, False
    while len(line) > 3:
        first = line[0]
        if first in " \t" or not (first in "[(#" or first.isalnum()):
            stripped = line.lstrip(" \t")
            if not stripped.startswith(("[rank", "(")) or len(line) - len(stripped) > 2:
                break
            line = stripped
        found = next((found for pattern in _PREFIXES if (found := pattern.match(line))), None)
        if not found:
            break
        process = found.groupdict().get("p") or process
        line, logged = line[found.end() :], True
    return Line(number, _unquoted(line) if logged and line.startswith(">") else line, process, logged)
