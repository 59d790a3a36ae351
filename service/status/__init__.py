"""A service as it is at one moment: a page for people, numbers for Prometheus."""
