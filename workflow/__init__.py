"""Long fine-tuning work on the Tinker API: `python workflow.py`."""
