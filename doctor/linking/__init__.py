"""A static link check: which names the installed packages import of one another that are not there."""
