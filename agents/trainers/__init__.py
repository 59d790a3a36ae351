"""What can train, answer and export: our own trainers, or a command of the user's, through one narrow interface."""
