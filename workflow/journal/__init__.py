"""What happened in a workflow's folder, and what follows from it: the one thing that is kept."""
