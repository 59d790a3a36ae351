"""What ImageClassifierTrainer is made of: its images, its network, its optimizer, what it counts and what it leaves."""
