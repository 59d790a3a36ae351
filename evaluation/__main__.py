"""`python -m evaluation`: the benchmark of rankers; `--help` tells the rest."""

from constants.missing_packages import run_command

if __name__ == "__main__":
    run_command("evaluate", "evaluation.evaluate_command")
