"""Steps are run, each a process of its own, watched and held to its checks."""
