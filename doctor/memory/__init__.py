"""What was proved, in files that people read, edit and share: faults with what mends them, and known-good sets."""
