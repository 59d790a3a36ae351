"""What failed, read from a traceback or a log."""
