"""What every reader of data raises."""


class DataError(Exception):
    """Data that is missing, unreadable, empty or misshapen: says what was given, what is allowed, what to do."""
