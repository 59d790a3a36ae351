"""Model tokens that are trained to tell what a network is worth."""
