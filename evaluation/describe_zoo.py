"""Computes data/zoo/descriptions.npz: `python -m evaluation.describe_zoo` (two minutes on one core)."""

from evaluation.ranking.describe_zoo import main

if __name__ == "__main__":
    main()
