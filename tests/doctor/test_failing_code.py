"""Code that fails as a failure did, from the failure itself."""

import pytest
from known import environment

from doctor.failure.facts import Failure, Frame, Raised
from doctor.proof.failing_code import codes_of

HERE = environment("tool==1.0", "base==2.0")


def failure(*codes, command=None):
    return Failure(
        "python", (Raised("ImportError", "x", tuple(Frame("a.py", 1, code=code) for code in codes)),), command=command
    )


@pytest.mark.parametrize(
    "frames, found",
    [(("main()", "from tool import (", "from tool.part import x", "import base"), ("from tool.part import x",)),
     (("import mine", "from base import name as n"), ("from base import name as n",)),
     (("from . import base", "base.run()", "import json"), ()), ((), ())],
)  # fmt: skip
def test_the_outermost_import_of_what_is_installed(frames, found):
    assert codes_of(failure(*frames), HERE) == found


@pytest.mark.parametrize(
    "command, found",
    [("python -c 'import tool; import base'", ("import tool; import base",)),
     ("python -c 'import tool; tool.run()'", ()),
     ("/v/bin/python3.11 -E -c 'import base'", ("import base",)), ("python train.py -c 'import tool'", ()),
     ("bash -c 'import tool'", ()), ("python -c 'unfinished", ()), (None, ()), ("python -c", ()), ("", ())],
)  # fmt: skip
def test_inline_code(command, found):
    assert codes_of(failure(command=command), HERE) == found
    assert codes_of(None, HERE) == ()
