"""`python -m config.key_table` rewrites the table of keys in docs/configuration.md from BaseTrainerConfig."""

import sys
from pathlib import Path

from config.base_trainer_config import BaseTrainerConfig
from config.config_docs import describe
from constants import PACKAGE_ROOT

PAGE = PACKAGE_ROOT / "docs" / "configuration.md"
_BEGIN = "<!-- keys: `python -m config.key_table` writes this table -->\n"
_END = "\n<!-- end of keys -->"


def key_table() -> str:
    """Return the table of the keys of every trainer, in Markdown."""
    rows = ["| key | default | type | what |", "|---|---|---|---|"]
    rows += [f"| `{doc.name}` | `{doc.default}` | {doc.type} | {doc.doc} |" for doc in describe(BaseTrainerConfig)]
    return "\n".join(rows)


def with_key_table(text: str) -> str:
    """Return a page's text with the table as it must be, between the comments that mark its place."""
    before, _, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"{PAGE} has no place for the table of keys: {_BEGIN.strip()} ... {_END.strip()}")
    return before + _BEGIN + key_table() + end + after


def main(page: Path = PAGE) -> int:
    """Rewrite the table in the page."""
    page.write_text(with_key_table(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
