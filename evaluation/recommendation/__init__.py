"""Which pre-trained model to fine-tune on one's own images: `python recommend.py photos/ --zoo hub.yaml`.

From features and labels to an answer: `probe` (how well each model's features fit), `level_groups` (which models can't
be told apart), `fine_tuned_accuracy` (what measured results add), `ranking` (the answer), and its forms: text, JSON,
picture, page.
"""
