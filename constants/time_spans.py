"""Times in words: `duration` of what was measured, `span` of what somebody waits for."""


def duration(seconds: float) -> str:
    """Write a measured time: `4.2 ms`, `0.42 s`, `12 s`, `3m05s`, `2h07m`."""
    if 0 < seconds < 0.0995:
        return f"{1000 * seconds:.2g} ms"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def span(seconds: float) -> str:
    """Write a time that somebody waits for: `40 s`, `45 min`, `2 h 10 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
