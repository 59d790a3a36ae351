"""What stops the doctor before it has an answer."""


class InputError(ValueError):
    """What was given can't be read, or isn't what the doctor takes: exit code 2.

    Args:
        problems: what is wrong, a sentence each, with its place: "requirements.txt:3: ...".
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class PatientError(RuntimeError):
    """An interpreter doesn't answer, so that nothing can be told of it: exit code 3."""
