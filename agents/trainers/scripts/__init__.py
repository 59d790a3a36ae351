"""Scripts that speak the protocol of a trainer by command."""
