"""Knowledge is looked up: documents in pieces, found by words and, where there is a model for it, by meaning."""
