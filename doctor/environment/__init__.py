"""What is installed, and on what machine, read from files."""
