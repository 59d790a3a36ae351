"""Shell commands that delete and rename files, in the shell of the system that they lie on."""

from doctor.environment.facts import Environment
from doctor.remedy.quoting import for_bash, for_powershell


def delete_command(environment: Environment, *paths: str) -> str:
    """Return the command that deletes files and folders.

    Args:
        environment: its system chooses between bash and PowerShell.
        paths: what to delete.
    """
    if _is_windows(environment):
        return "; ".join(for_powershell("Remove-Item", "-Recurse", "-Force", path) for path in paths)
    return for_bash("rm", "-r", *paths)


def rename_command(environment: Environment, path: str, new: str) -> str:
    """Return the command that gives a file or a folder another path."""
    if _is_windows(environment):
        return for_powershell("Move-Item", path, new)
    return for_bash("mv", path, new)


def _is_windows(environment: Environment) -> bool:
    return environment.interpreter is not None and environment.interpreter.sys_platform == "win32"
