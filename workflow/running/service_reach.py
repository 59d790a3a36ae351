"""The service of models, before a step begins: is its key of the right form, and does its address answer?"""

import re
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from workflow.estimates.spending import ADDRESS, KEY, is_hosted

_HOSTED = "https://tinker.thinkingmachines.dev"
_WAIT = 5.0  # seconds
_SAMPLE = re.compile(
    r"(?:tml-|sk-)?(?:\.{3}|<.*>|your.*|my.?key|change.?me.*|x{3,}.*|placeholder.*|example.*|insert.*|todo|\*+)",
    re.IGNORECASE,
)
_BEGINS = "tml-"


def fault_of_value(name: str, value: str) -> str:
    """Say what is wrong with the form of a key or token; "" where nothing is seen.

    Args:
        name: its environment variable.
        value: what it is set to. It is never shown.
    """
    if value != value.strip() or re.search(r"\s", value):
        return "it has blanks or a line break in it"
    if value[:1] in "'\"" or value[-1:] in "'\"":
        return "it has quotation marks around it"
    if not value.isascii() or not value.isprintable():
        return "it has letters that no key has, as text copied from a page may have"
    if _SAMPLE.fullmatch(value):
        return "it is a placeholder, not a key"
    if name == KEY and not value.startswith(_BEGINS):
        return f"keys of Tinker begin with {_BEGINS}"
    return ""


def unreachable(variables: Mapping[str, str]) -> str:
    """Say why the service can't be reached; "" where it answers, or where a step begins one of its own.

    Args:
        variables: environment variables that the step would see.
    """
    if not variables.get(ADDRESS) and not is_hosted(variables):
        return ""
    address = variables.get(ADDRESS) or _HOSTED
    # Behind a proxy the proxy is what must answer.
    proxy = next((variables[name] for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
                  if variables.get(name)), None)  # fmt: skip
    place = urlsplit(proxy if proxy and is_hosted(variables) else address)
    port = place.port or (443 if place.scheme == "https" else 80)
    try:
        with socket.create_connection((place.hostname or "", port), timeout=_WAIT):
            return ""
    except OSError as error:
        return f"{address} does not answer: {error.strerror or error}"
