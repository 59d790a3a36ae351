"""What is a number, wherever files, events and settings say one."""


def number_of(value: object) -> float | None:
    """Return a value as a number, a text such as "1e-4" or "nan" too; None where it is none, or true or false."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value) if isinstance(value, int | float) else float(str(value))
    except (ValueError, OverflowError):
        return None
