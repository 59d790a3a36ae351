"""What a source file's text says of it."""

import textwrap

import pytest

from doctor.knowledge.assemble import assemble
from doctor.knowledge.release_files import is_inner, is_read
from doctor.knowledge.scan import ALWAYS, GUARDED, LATER, summarise


def summary(text):
    found = summarise(textwrap.dedent(text).encode())
    assert found is not None
    return found


def offered(files):
    """Return what a release of files offers."""
    made = {path: summary(text) for path, text in files.items()}
    return assemble({path: path for path in files}, made.get)


def test_names_that_definitions_imports_and_assignments_bind():
    text = """
    import os.path
    import numpy as np
    from torch import nn as layers
    def function(): local = 1
    class Thing:
        inside = 1
    a, (b, *c) = 1, (2, 3)
    d: int = 4
    with open("x") as e: pass
    for f in (): g = f
    try:
        import fast
    except ImportError:
        fast = None
    if a: h = 1
    else: i = 2
    gone = 1
    del gone
    """
    names = offered({"one/__init__.py": text}).names["one"]
    expected = {"os", "np", "layers", "function", "Thing", *"abcdefghi", "fast"}
    assert names == expected


@pytest.mark.parametrize(
    ("text", "sure"),
    [
        ("from torch import log", ALWAYS),
        ("try:\n    from torch import log\nexcept ImportError:\n    log = None", GUARDED),
        ("try:\n    from torch import log\nexcept (KeyError, ModuleNotFoundError):\n    log = None", GUARDED),
        ("try:\n    from torch import log\nexcept:\n    log = None", GUARDED),
        ("try:\n    from torch import log\nexcept KeyError:\n    raise", ALWAYS),
        ("try:\n    pass\nexcept ImportError:\n    from torch import log", GUARDED),
        ("from contextlib import suppress\nwith suppress(ImportError):\n    from torch import log", GUARDED),
        ("if is_torch_available():\n    from torch import log", GUARDED),
        ("if sys.version_info < (3, 8):\n    pass\nelse:\n    from torch import log", GUARDED),
        ("def later():\n    from torch import log", LATER),
        ("class A:\n    from torch import log", ALWAYS),
        ("class A:\n    def later(self):\n        from torch import log", LATER),
    ],
)
def test_how_surely_an_import_runs(text, sure):
    found = [one for one in summary(text)["imports"] if one[1] == "torch"]
    assert found == [(0, "torch", "log", "log", sure)]


def test_imports_for_type_checkers_are_none():
    assert "imports" not in summary("if typing.TYPE_CHECKING:\n    from torch import log")


def test_attributes_are_told_by_the_modules_own_name():
    text = """
    import pyarrow as pa
    import torch.nn.functional
    from torch import nn
    import os
    class Old(pa.PyExtensionType):
        def later(self): return torch.nn.functional.gelu(pa.array(nn.Linear.weight))
    os.path.join("a")
    """
    uses = dict(summary(text)["uses"])
    assert uses == {
        "pyarrow.PyExtensionType": ALWAYS,
        "pyarrow.array": LATER,
        "torch.nn.functional.gelu": LATER,
        "torch.nn.Linear.weight": LATER,
    }


def test_annotations_count_only_where_they_are_evaluated():
    text = "import torch\ndef f(x: torch.Tensor) -> torch.Size: pass"
    assert dict(summary(text)["uses"]) == {"torch.Tensor": ALWAYS, "torch.Size": ALWAYS}
    assert "uses" not in summary("from __future__ import annotations\n" + text)


def test_parameters_of_functions_methods_and_dataclasses():
    text = """
    from dataclasses import dataclass
    def load(path, /, name, *more, split=None, **rest): pass
    class Trainer:
        @deprecate_kwarg("tokenizer", "0.16", new_name="processing")
        def __init__(self, model, processing=None): pass
        @staticmethod
        def make(model): pass
    class Child(Trainer): pass
    @dataclass
    class Config:
        rate: float = 1.0
        steps: int = 2
        shared = 3
    @dataclass
    class Longer(Config):
        more: int = 1
    class Settings(BaseModel):
        port: int
    """
    found = offered({"one/__init__.py": text}).functions
    assert found["load"] == {"name", "split", "**"}
    assert found["Trainer.__init__"] == found["Child.__init__"] == {"model", "processing", "tokenizer"}
    assert found["Trainer.make"] == {"model"}
    assert found["Config.__init__"] == {"rate", "steps"}
    assert found["Longer.__init__"] == {"rate", "steps", "more"} and found["Settings.__init__"] == {"port"}


def test_a_constructor_of_another_project_is_named():
    text = """
    from dataclasses import dataclass
    import transformers as hf
    from transformers.trainer import Trainer as Base
    @dataclass
    class Config(hf.TrainingArguments):
        length: int = 1
    class Mine(Base): pass
    class Own(Base):
        def __init__(self, model): pass
    """
    found = offered({"one/__init__.py": text})
    assert found.functions["Config.__init__"] == {"length"}
    assert found.inherited == {
        "Config.__init__": {"transformers.TrainingArguments"},
        "Mine.__init__": {"transformers.trainer.Trainer"},
    }
    assert found.functions["Own.__init__"] == {"model"}


def test_calls_with_keywords_also_of_constructors_above():
    text = """
    import httpx
    from functools import partial
    class Wrapper(httpx.Client):
        def __init__(self, **rest): super().__init__(follow=True)
    if TYPE_CHECKING:
        Named = httpx.Client
    else:
        Named = Wrapper
    def go(model):
        model.unwrap_model(x, keep=True)
        Named(proxies=None)
        partial(httpx.get, timeout=1)
    """
    calls = offered({"one/__init__.py": text}).calls
    assert {("unwrap_model", "keep"), ("Client", "follow"), ("Client", "proxies"), ("get", "timeout")} <= calls.keys()


def test_names_of_lazy_modules():
    """The tables of transformers, huggingface_hub, diffusers and of modules with a __getattr__ of their own."""
    files = {
        "one/__init__.py": """
            _import_structure = {"config": ["Config", "load"], "models": []}
            try:
                pass
            except Missing:
                pass
            else:
                _import_structure["models"].extend(["Model", "Head"])
                _import_structure["extra"] = ["Extra"]
                _import_structure["one"].append("Single")
            if TYPE_CHECKING:
                from .typed import Typed
            else:
                sys.modules[__name__] = _LazyModule(__name__, globals()["__file__"], _import_structure)
            """,
        "hub/__init__.py": """
            _SUBMOD_ATTRS = {"file_download": ["hf_hub_download"]}
            _SUBMOD_ATTRS.update({"api": ["HfApi"]})
            __getattr__, __dir__, __all__ = _attach(__name__, submodules=[], submod_attrs=_SUBMOD_ATTRS)
            """,
        "early/__init__.py": '__getattr__, __dir__, __all__ = _attach(__name__, submod_attrs={"api": ["HfApi"]})',
        "direct/__init__.py": """
            __all__ = ["LLM", "Engine"]
            MODULE_ATTRS = {"LLM": ".entrypoints:LLM", "Engine": (".engine", "Engine")}
            UNRELATED = {"nothing": "of it"}
            def __getattr__(name):
                if name in MODULE_ATTRS:
                    return import_module(MODULE_ATTRS[name])
                raise AttributeError
            """,
        "deep/__init__.py": """
            import_structure = define_import_structure(Path(__file__).parent / "models", prefix="models")
            sys.modules[__name__] = _LazyModule(__name__, import_structure)
            """,
        "deep/models/__init__.py": "",
        "deep/models/llama/__init__.py": "x = define_import_structure(_file)",
        "deep/models/llama/modeling.py": '__all__ = ["LlamaModel"]\nclass LlamaModel: pass\nclass _Hidden: pass',
        "deep/other.py": '__all__ = ["NotOffered"]',
    }
    found = offered(files)
    assert {"Config", "load", "Model", "Head", "Extra", "Single", "Typed"} <= found.names["one"]
    assert {"hf_hub_download", "HfApi"} <= found.names["hub"]
    assert "HfApi" in found.names["early"]
    assert {"LLM", "Engine"} <= found.names["direct"] and "nothing" not in found.names["direct"]
    assert "LlamaModel" in found.names["deep"] & found.names["deep.models.llama"]
    assert "NotOffered" not in found.names["deep"]
    assert not found.unlisted, "all of them can be followed"


def test_star_imports_are_followed_and_what_cannot_be_is_said():
    files = {
        "one/__init__.py": "from .first import *\nfrom one.second import *\nfrom os.path import *",
        "one/first.py": '__all__ = ["shown", "_also"]\nshown = hidden_from_stars = _also = 1',
        "one/second.py": "from .first import *\nfrom . import first\n_private = public = 2",
        "two/__init__.py": "from numpy import *",
        "three.py": "for name in table:\n    globals()[name] = 1",
        "four.py": "from .four import *\ndef __getattr__(name):\n    return compute(name)",
        "five.py": "def __getattr__(name):\n    raise AttributeError(name)",
        "six.py": "globals().update(found)\n__all__ = ['told']",
        "seven.py": "__getattr__ = moved_elsewhere(__name__)",
    }
    found = offered(files)
    assert {"shown", "_also", "public", "first"} <= found.names["one"] and "_private" not in found.names["one"]
    assert found.unlisted == {"two", "three", "four", "six", "seven"} and "told" in found.names["six"]


def test_compiled_modules_are_there_and_stubs_tell_their_names():
    files = {"one/__init__.py": "from ._fast import *", "one/_fast.pyi": "def quick(x: int) -> int: ..."}
    made = {path: summary(text) for path, text in files.items()}
    keys = {path: path for path in files} | {"one/_fast.cpython-311-x86_64-linux-gnu.so": "", "two.abi3.so": ""}
    found = assemble({**keys, "one.libs/libz.so": ""}, made.get)
    assert "quick" in found.names["one"] and found.names["one._fast"] == {"quick"}
    assert found.unlisted == {"two"} and found.names.keys() == {"one", "one._fast", "two"}


def test_what_importing_the_project_reaches():
    files = {
        "one/__init__.py": "from .core import run\ntry:\n    from . import extra\nexcept ImportError:\n    pass",
        "one/core/__init__.py": "from one.core.deep import thing",
        "one/core/deep.py": "from torch import a\nimport torch.sub\ndef f():\n    from torch import later",
        "one/extra.py": "from torch import b",
        "one/alone.py": "from torch import b, a, c",
    }
    uses = offered(files).uses
    assert uses[("torch", "a")] == (0, "one/core/deep.py") and uses[("torch.sub", "")] == (0, "one/core/deep.py")
    assert uses[("torch", "b")][0] == 1 and uses[("torch", "c")] == (1, "one/alone.py")
    assert uses[("torch", "later")] == (2, "one/core/deep.py")


def test_model_types_in_both_forms():
    text = 'CONFIG_MAPPING_NAMES = OrderedDict([("bert", "BertConfig"), ("llama", "LlamaConfig")])'
    assert summary(text)["model_types"] == ["bert", "llama"]
    text = 'CONFIG_MAPPING_NAMES: dict[str, str] = OrderedDict({"bert": "BertConfig"})'
    assert summary(text)["model_types"] == ["bert"]


@pytest.mark.parametrize("text", [b"def broken(:", b"print 'old'", b"\x00", b"x = " + b"-" * 100_000 + b"1"])
def test_what_is_no_python_has_no_summary(text):
    assert summarise(text) is None


def test_an_outline_holds_all_but_what_functions_do():
    text = b"from torch import a\ndef f(x, y=a.z):\n    from torch import b\n    b.c(d=1)\n"
    text += b"class A:\n    def g(self, h): pass"
    whole, outline = summarise(text), summarise(text, bodies=False)
    assert [one[2] for one in whole["imports"]] == ["a", "b"] and whole["calls"] == {"c": ["d"]}
    assert [one[2] for one in outline["imports"]] == ["a"] and "calls" not in outline
    assert outline["functions"] == whole["functions"] == {"f": ["x", "y"], "A.g": ["h"]}
    assert outline["uses"] == [("torch.a.z", ALWAYS)]


@pytest.mark.parametrize(
    ("path", "read", "inner"),
    [
        ("torch/nn/__init__.py", True, False),
        ("torch/_inductor/config.py", True, True),
        ("transformers/models/llama/modeling_llama.py", True, True),
        ("transformers/models.py", True, False),
        ("torch/testing/thing.py", True, True),
        ("torch/_C/__init__.pyi", True, True),
        ("one/tests/test_it.py", False, False),
        ("tests/conftest.py", False, False),
        ("one-1.0.data/scripts/run.py", False, False),
        ("one/not-a-module.py", False, False),
        ("one/data.txt", False, False),
        ("single.py", True, False),
    ],
)
def test_which_files_are_read_and_which_in_outline(path, read, inner):
    assert is_read(path) is read and is_inner(path) is inner
