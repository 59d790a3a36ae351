"""One HTTP service over the language models of llm/: requests of clients become rows of one running batch.

The OpenAI protocol, which trainers serve to the agents that they start too, and the Tinker protocol, by which clients
train.
"""
