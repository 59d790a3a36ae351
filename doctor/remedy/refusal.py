"""A file that is not edited, and what to paste instead."""


class CannotEdit(Exception):
    """A file can't be edited safely.

    Args:
        why: what stands in the way.
        paste: lines to paste by hand; empty where the pins themselves will do.
    """

    def __init__(self, why: str, paste: tuple[str, ...] = ()) -> None:
        super().__init__(why)
        self.paste = paste
