"""Which model to tune: a table of open models, what each would take, and which fit."""
