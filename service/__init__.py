"""One HTTP service over the language models of llm/: requests of clients become rows of one running batch.

So far the OpenAI protocol, which trainers serve to the agents that they start.
"""
