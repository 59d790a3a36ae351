"""What can be wrong with serving the page."""


class PageError(Exception):
    """A page that can't be served; the text says why and what to do."""
