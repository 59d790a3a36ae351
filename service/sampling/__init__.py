"""One running batch for all clients: the thread that samples, when requests join, and what they sample from."""
