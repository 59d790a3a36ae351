"""What is wanted: task.yaml, and the folder that a task lives in."""
