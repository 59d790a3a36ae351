"""The nodes of the graph: each reads the state, does its effects once, and returns what has changed."""
