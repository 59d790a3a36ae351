"""Why a row is answered so, for the page: told by `tune.py explain`, in a process that ends with the server."""

import asyncio
import contextlib
import json
import sys

from agents.explanation import Explanation, ExplanationError
from agents.task.folder import TaskFolder
from constants.paths import IS_CHECKOUT, PACKAGE_ROOT


class Explaining:
    """Explains one row at a time.

    Args:
        folder: the task's folder.
    """

    def __init__(self, folder: TaskFolder) -> None:
        self._folder = folder
        self._busy = asyncio.Lock()

    async def of(self, row: str) -> Explanation:
        """Explain a row. It takes a model's start; a second time what was found is read again.

        Args:
            row: its id.

        Raises:
            ExplanationError: it can't be explained, or another row is being.
        """
        if self._busy.locked():
            raise ExplanationError("another row is being explained; ask again when it is")
        if row.startswith("-"):  # which the command would take for an option
            raise ExplanationError(f"there is no row {row}")
        async with self._busy:
            script = [str(PACKAGE_ROOT / "tune.py")] if IS_CHECKOUT else ["-m", "menagerie", "tune"]
            words = ["explain", str(self._folder.path), row, "--json", "--thread", self._folder.thread]
            process = await asyncio.create_subprocess_exec(
                sys.executable, *script, *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                told, mistakes = await process.communicate()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
        if process.returncode:
            lines = mistakes.decode("utf-8", "replace").strip().splitlines() or ["it was ended"]
            raise ExplanationError(" ".join(line.removeprefix("error: ") for line in lines))
        return Explanation.of(json.loads(told.decode().splitlines()[-1]))
