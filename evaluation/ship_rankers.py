"""Trains the rankers that the program comes with anew: `python -m evaluation.ship_rankers` (two minutes)."""

from evaluation.ranking.ship_rankers import main

if __name__ == "__main__":
    main()
