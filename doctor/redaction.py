"""Takes credentials out of texts: the one place that everything passes that is shown, kept or handed on."""

import re
from collections.abc import Callable

HIDDEN = "***"
_VALUE = r"""(?:"[^"\n]*"?|'[^'\n]*'?|[^\s,;&'"`)\]}<>|][^\s,;&'"`)\]}<>]*|<[^\s<>|]{8,}>)"""

# Tokens that are known by their form. None may match the name of a package or of a git commit.
_SHAPES = re.compile(
    r"\b(?:"
    r"hf_(?=[A-Za-z]*\d|[a-z]*[A-Z]|[A-Z]+[a-z])[A-Za-z0-9]{8,}|api_org_[A-Za-z0-9]{16,}|"
    r"sk-[A-Za-z0-9_\-]{6,}|sk_(?:live|test)_[A-Za-z0-9]{8,}|"
    r"gh[pousr]_[A-Za-z0-9]{10,}|github_pat_[A-Za-z0-9_]{10,}|glpat-[\w\-]{10,}|"
    r"(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}|xox[a-z]-[\w\-]{8,}|xapp-[\w\-]{10,}|AIza[\w\-]{20,}|ya29\.[\w\-.]{10,}|"
    r"npm_[A-Za-z0-9]{20,}|pypi-[A-Za-z0-9_\-]{40,}|dckr_pat_[\w\-]{10,}|nvapi-[\w\-]{16,}|r8_[A-Za-z0-9]{20,}|"
    r"gsk_[A-Za-z0-9]{20,}|lsv2_[a-z]{2}_\w{10,}|wandb_v\d_\w{10,}|tml-[\w\-]{10,}|xai-[A-Za-z0-9]{20,}|"
    r"pplx-[A-Za-z0-9]{20,}|tgp_v\d_[\w\-]{16,}|"
    r"eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{4,}(?:\.[A-Za-z0-9_\-]*){0,3}"
    r")"
)
_URL_USER = re.compile(r"://(?!(?:git|\*\*\*)@)[^\s/'\"<>]{1,512}@")
_URL_SLASH = re.compile(r"://[^\s/:@'\"<>]{1,256}:(?!\d{1,5}[/\s])[^\s@'\"<>]{1,256}@")
_QUERY = re.compile(
    r"([?&;][\w.\-]{0,40}(?:token|key|secret|passw(?:or)?d|pwd|signature|sig|"
    r"credential|auth)[\w\-]{0,20}=)[^&\s'\"<>#]+",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization|x-api-key|x-auth-token|private-token|x-goog-api-key)"
    r"(\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?)((?:bearer|basic|token|digest|negotiate|apikey)\s{1,4})?[^\s\"',;}\\]+",
    re.IGNORECASE,
)
_COOKIE = re.compile(r"\b((?:set-)?cookie[\"']?\s{0,4}:\s{0,4}[\"']?)[^\n\"'}]+", re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer\s{1,4})[A-Za-z0-9._~+/=\-]{12,}", re.IGNORECASE)
_WANDB = re.compile(r"(wandb[^\n]{0,80}?)\b(?:local-[\w.\-]{1,40}-)?[0-9a-f]{40}\b", re.IGNORECASE)
_NETRC = re.compile(
    r"(\b(?:machine\s{1,8}\S{1,200}|default)\s{1,8}login\s{1,8})\S+(\s{1,8}(?:account\s{1,8}\S+\s{1,8})?password\s{1,8})\S+"
)
_NETRC_LINE = re.compile(r"^([ \t]{0,8}password[ \t]{1,8})\S+[ \t]*$", re.MULTILINE)
_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----")
_END = re.compile(r"-----END [A-Z0-9 ]{0,40}-----")
_KEY_LINES = re.compile(r"(?:[^\n]{0,120}?[A-Za-z0-9+/=]{16,}[ \t\r]*(?:\\n)?\n?|[ \t\r]*\n){0,200}")

# NAME=VALUE, "name": "value", --name value.
_NAMED = re.compile(
    r"(token|secret|password|passwd|passphrase|credential|pwd|_auth(?![a-z])|key)(s?(?:[_\-]?[A-Z0-9_\-]{1,40})?)"
    r"(\\?[\"']?\]?[ \t]{0,8}(?:=>|:=|==?|:)[ \t]{0,8}\\?)(?P<value>" + _VALUE + ")",
    re.IGNORECASE,
)
_OPTION = re.compile(
    r"((?:token|secret|password|passwd|passphrase|credentials?|(?:api|access|auth|secret)[_\-]?key)[ \t]{1,4})(?!-)"
    r"(?P<value>" + _VALUE + ")",
    re.IGNORECASE,
)
_NAME_BEFORE = re.compile(r"[A-Za-z0-9_\-.]{0,64}\Z")
_HARMLESS_VALUE = re.compile(
    r"[\"']?(?:true|false|yes|no|on|off|none|null|nil|str|int|bool|bytes|optional\b.*|\.{3}|\d{1,6}|"
    r"<\|?[a-z_]+\|?>|\[[A-Z]+\]?|(?:self|args|kwargs|config|tokenizer|processor|"
    r"model|os|cls|settings|training_args)[.\[(].*)[\"']?",
    re.IGNORECASE,
)
# Of language models, not of accounts.
_MODEL_TOKEN = re.compile(
    r"(?:\b|_)(?:bos|eos|pad|unk|sep|cls|mask|image|video|audio|special|new|"
    r"next|prompt|completion|input|output|total|num|max|"
    r"min|per|stop|start|end|prefix|suffix|boi|eoi|think|added|chat|text|first|last|generated|cached|reasoning|vision|"
    r"decoder_start|forced_bos|batched|train|n|of|by|to|single|each)[_\-]?\Z",
    re.IGNORECASE,
)
_STRONG_KEY = re.compile(
    r"(?:api|access|auth|private|secret|account|storage|service|ssh|wandb|openai|"
    r"anthropic|tinker|license|encryption|signing|"
    r"master|deploy|client|subscription)[_\-]?\Z",
    re.IGNORECASE,
)
# What may follow the word in a name of a credential, and the rest of a name of an environment variable.
_MORE = re.compile(r"(?:_|-|(?=[A-Z]))(?:id|key|access_?key|value|secret|token|password|file_content)", re.IGNORECASE)
_SHOUTED = re.compile(r"[A-Z0-9_]*[A-Z][A-Z0-9_]*")


def redact(text: str) -> str:
    """Return a text without the credentials in it, each replaced by ***.

    User names of home folders stay: they are in every path and tell what is whose. The time is linear in the length.

    Args:
        text: any text: a log, a URL, a command, a file.

    Returns:
        The text; the same one where it holds none.
    """
    text = _without_private_keys(text)
    if "://" in text:
        text = _URL_SLASH.sub(f"://{HIDDEN}@", _URL_USER.sub(f"://{HIDDEN}@", text))
    if "=" in text:
        text = _QUERY.sub(rf"\1{HIDDEN}", text)
    text = _HEADER.sub(lambda found: f"{found[1]}{found[2]}{found[3] or ''}{HIDDEN}", text)
    text = _COOKIE.sub(rf"\1{HIDDEN}", text)
    text = _BEARER.sub(rf"\1{HIDDEN}", text)
    text = _SHAPES.sub(_shaped, text)
    text = _WANDB.sub(rf"\1{HIDDEN}", text)
    if "password" in text:
        text = _NETRC_LINE.sub(rf"\1{HIDDEN}", _NETRC.sub(rf"\1{HIDDEN}\2{HIDDEN}", text))
    if "-" in text:
        text = _OPTION.sub(_option_in(text), text)
    return _NAMED.sub(_named_in(text), text)


def _shaped(found: re.Match[str]) -> str:
    """Return what replaces something of a token's form: a word without a digit such as sk-learn-tools is none."""
    return found[0] if found[0].startswith("sk-") and not any(mark.isdigit() for mark in found[0]) else HIDDEN


def _option_in(text: str) -> Callable[[re.Match[str]], str]:
    """Return what replaces the value of an option of a command in a text: "--token abc"."""

    def replace(found: re.Match[str]) -> str:
        before = _NAME_BEFORE.search(text, max(0, found.start() - 64), found.start())
        if before is None or not before[0].startswith("-") or _HARMLESS_VALUE.fullmatch(found["value"]):
            return found[0]
        return found[1] + _hidden(found["value"])

    return replace


def _named_in(text: str) -> Callable[[re.Match[str]], str]:
    """Return what replaces a named value of a text, by the whole name, which begins before the match."""

    def replace(found: re.Match[str]) -> str:
        word, rest, between, value = found[1].lower(), found[2], found[3], found["value"]
        before_match = _NAME_BEFORE.search(text, max(0, found.start() - 64), found.start())
        before = before_match[0] if before_match else ""
        alone = found[1].isupper() and word != "pwd" and not before and not rest
        if not (_is_secret(before, word, rest, value) or (alone and not _HARMLESS_VALUE.fullmatch(value))):
            return found[0]
        return f"{found[1]}{rest}{between}{_hidden(value)}"

    return replace


def _is_secret(before: str, word: str, rest: str, value: str) -> bool:
    """Return whether a name, cut in what stands before its word, the word and the rest, names a credential."""
    if _HARMLESS_VALUE.fullmatch(value) or value.strip("\"'") == HIDDEN or "TOKENIZER" in (word + rest).upper():
        return False
    tail = rest[1:] if rest[:1] in ("s", "S") else rest
    if _SHOUTED.fullmatch(before.rpartition(".")[2] + rest):
        return not (word == "token" and _MODEL_TOKEN.search(before) and value.strip("\"'").isdigit())
    if tail:  # secretKey, password_file; not tokenizers, keyword, secretary
        return bool(_MORE.fullmatch(tail)) and word not in ("key", "pwd") and (word != "token" or "alue" in tail)
    if word == "token":
        return not _MODEL_TOKEN.search(before)
    if word == "key":
        plain = value.strip("\"'")
        long = len(plain) >= 8 and any(mark.isdigit() for mark in plain) and before.endswith(("_", "-"))
        return bool(_STRONG_KEY.search(before)) or long
    return bool(before) or word != "pwd"


def _hidden(value: str) -> str:
    """Return what replaces a value, in the quotes that it stands in."""
    quote = value[0] if value[:1] in ("'", '"') else ""
    return f"{quote}{HIDDEN}{quote if len(value) > 1 and value.endswith(quote) else ''}"


def _without_private_keys(text: str) -> str:
    """Return a text without blocks of private keys; of one that doesn't end, without the lines that look like it."""
    pieces, at = [], 0
    while begin := _BEGIN.search(text, at):
        pieces.append(text[at : begin.end()])
        at = begin.end()
        if text.startswith(HIDDEN, at):
            continue
        end = _END.search(text, begin.end(), begin.end() + 20_000)
        lines = _KEY_LINES.match(text, begin.end())
        at = end.start() if end else lines.end() if lines else at
        pieces.append(f"{HIDDEN}\n" if text[at - 1] == "\n" else HIDDEN)
    return "".join([*pieces, text[at:]]) if pieces else text
