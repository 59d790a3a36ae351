"""From facts and knowledge to findings, by the branches of one decision tree."""
