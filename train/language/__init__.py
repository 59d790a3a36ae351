"""What the trainers of language models share: the model under training, its optimizer, its answers."""
