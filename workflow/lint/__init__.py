"""Reads scripts on the Tinker API, without running them, and says what costs time, money or results."""
