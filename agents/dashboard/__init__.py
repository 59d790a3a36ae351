"""The page of a run: what it does, what it asks, what came of it. All is drawn from the task's folder."""
