"""Who chooses among the actions that are possible: written rules, or a language model."""
