"""Digests of weights as messages show them."""


def shown_digest(digest: str) -> str:
    """Return the beginning of a checksum, which is enough to tell two apart; a digest that is no checksum is whole.

    Args:
        digest: a SHA-256 in hexadecimal digits, or the name of weights that are drawn (`tiny:0, std 0.1`).
    """
    return digest[:12] if len(digest) == 64 else digest
