"""What steps take: time, tokens, money, disk."""
