"""Names of modules: of the standard library by what a file of that name does, and those that projects use."""

# Modules of the standard library in Python that torch, numpy or requests import (read from sys.modules): a file of such
# a name that is found first breaks them all.
_USED = """
    argparse ast asyncio base64 bisect calendar collections concurrent contextlib contextvars copy copyreg csv ctypes
    dataclasses datetime difflib dis email enum fnmatch functools gettext glob gzip hashlib heapq hmac html http
    importlib inspect ipaddress json keyword linecache locale logging lzma mimetypes multiprocessing numbers opcode
    operator pathlib pickle pickletools pkgutil platform pprint queue random re reprlib secrets selectors shutil signal
    socket ssl string struct subprocess tarfile tempfile textwrap threading timeit token tokenize traceback types typing
    unittest urllib uuid warnings weakref zipfile
"""
# Those of them that Python may have loaded before a script's folder is on the path: a line of code in a .pth file does
# that. Tried with Python 3.8 to 3.13.
_EARLY = """
    collections contextlib copyreg enum functools importlib keyword operator re reprlib types typing warnings
"""
# Loaded before the path is looked at, part of the interpreter itself, or imported by nobody.
_HARMLESS = """
    __future__ abc antigravity atexit builtins codecs encodings errno faulthandler gc genericpath idlelib io itertools
    lib2to3 marshal nt ntpath os posix posixpath pwd runpy site sre_compile sre_constants sre_parse stat sys test this
    time turtle turtledemo xxsubtype zipimport
"""
# Names that projects give to their own parts: that some distribution installs one of them too is its fault.
_GENERIC = """
    app apps assets benchmark benchmarks bin build common config configs conftest constants core data dataset demo dist
    doc docs example examples experiments helper helpers lib libs main model models modules notebooks plugins resources
    samples scripts settings setup src tasks templates test tests tool tools train training util utils version
"""
USED, EARLY, HARMLESS, GENERIC = (frozenset(names.split()) for names in (_USED, _EARLY, _HARMLESS, _GENERIC))
