"""The one error that settings raise."""


class ConfigError(Exception):
    """Everything that is wrong with the settings, found in one go."""

    def __init__(self, problems: list[str] | str) -> None:
        """Keep the problems.

        Args:
            problems: messages, each one naming its place (`config.ini:14 [Section] ...`).
        """
        given = [problems] if isinstance(problems, str) else problems
        # A message that quotes foreign text (a `__post_init__`, an import error) may hold newlines.
        self.problems: list[str] = [" ".join(problem.splitlines()) for problem in given]
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)
