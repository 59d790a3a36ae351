"""What a running step tells, and what it does not: progress, losses, cost, trouble."""
