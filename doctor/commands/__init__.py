"""What `python doctor.py` does, a file a command."""
