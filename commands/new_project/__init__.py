"""`menagerie init FOLDER`: writes a small project that works at once. Its files, as they are, lie in files/."""

from commands.new_project.writing import CONFTEST, write_project

__all__ = ["CONFTEST", "write_project"]
