"""Texts of failures, of each kind that people paste, with what is to be read in them.

Those of Python, pip, uv, gcc and ld were printed by these programs; the others follow the format of theirs.
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "failures"

CHAIN = """\
Traceback (most recent call last):
  File "/usr/lib/python3.10/site-packages/transformers/utils/import_utils.py", line 1390, in _get_module
    return importlib.import_module("." + module_name, self.__name__)
  File "/usr/lib/python3.10/importlib/__init__.py", line 126, in import_module
    return _bootstrap._gcd_import(name[level:], package, level)
ImportError: cannot import name 'x' from 'y'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/home/me/train.py", line 3, in <module>
    from transformers import Trainer
RuntimeError: Failed to import transformers.trainer because of the following error (look up to see its traceback):
cannot import name 'x' from 'y'
"""


@dataclass(frozen=True)
class Told:
    """A text by its file's name, and how what is read in it begins."""

    name: str
    kind: str
    raised: tuple[str, ...]
    importer: str | None
    cut: bool = False

    @property
    def text(self) -> str:
        return (FOLDER / f"{self.name}.txt").read_bytes().decode()


LOGS = (
    Told(
        "assert",
        "python",
        (
            "../aten/src/ATen/native/cuda/Indexing.cu:1290: indexSelectLargeIndex: ",
            "RuntimeError: CUDA error: device-side assert triggered",
        ),
        None,
    ),
    Told(
        "chain313",
        "python",
        (
            "ZeroDivisionError: division by zero",
            "ValueError: bad",
            "ModuleNotFoundError: No module named 'nothing_such'",
        ),
        None,
    ),
    Told(
        "chain38",
        "python",
        (
            "ZeroDivisionError: division by zero",
            "ValueError: bad",
            "ModuleNotFoundError: No module named 'nothing_such'",
        ),
        None,
    ),
    Told("chinese", "python", ("ModuleNotFoundError: No module named 'torch'",), None),
    Told(
        "cmake",
        "build",
        (
            "CMake Error at CMakeLists.txt:3 (project):",
            "\u00d7 Building wheel for llama-cpp-python (pyproject.toml) did not run suc",
            "*** CMake configuration failed",
            "ERROR: Failed building wheel for llama-cpp-python",
            "ERROR: Could not build wheels for llama-cpp-python, which is required ",
        ),
        None,
    ),
    Told(
        "colab",
        "python",
        (
            "ImportError: cannot import name 'HybridCache' from 'transformers' (/us",
            "RuntimeError: Failed to import trl.trainer.sft_trainer because of the ",
        ),
        "peft",
    ),
    Told("conda", "conda", ("UnsatisfiableError: The following specifications were found to be inco",), None),
    Told(
        "deepspeed",
        "build",
        (
            "AssertionError: CUDA_HOME does not exist, unable to compile CUDA op(s)",
            "error: subprocess-exited-with-error",
            "\u00d7 python setup.py egg_info did not run successfully.",
            "error: metadata-generation-failed",
            "\u00d7 Encountered error while generating package metadata.",
        ),
        None,
    ),
    Told(
        "delfirst",
        "python",
        (
            "Exception: Installed CUDA version 11.7 does not match the version torc",
            "AttributeError: 'DeepSpeedCPUAdam' object has no attribute 'ds_opt_ada",
        ),
        "deepspeed",
    ),
    Told(
        "depres",
        "pip",
        (
            "torchaudio 2.5.1+cu124 requires torch==2.5.1, but you have torch 2.6.0",
            "fastai 2.7.18 requires torch<2.6,>=1.10, but you have torch 2.6.0 whic",
        ),
        None,
    ),
    Told(
        "destructor",
        "python",
        ("NameError: name 'Missing' is not defined", "AttributeError: 'A' object has no attribute 'y'"),
        None,
    ),
    Told(
        "dlwin",
        "python",
        ("OSError: [WinError 126] The specified module could not be found. Error",),
        "torch",
        cut=True,
    ),
    Told("docker", "python", ("ModuleNotFoundError: No module named 'torch'",), None),
    Told(
        "dockerbuild",
        "build",
        (
            "ModuleNotFoundError: No module named 'torch'",
            "error: subprocess-exited-with-error",
            "\u00d7 python setup.py egg_info did not run successfully.",
        ),
        None,
    ),
    Told("escaped", "python", ("ValueError: bad thing",), None),
    Told("fault", "python", ("Fatal Python error: Segmentation fault", "Segmentation fault (core dumped)"), "triton"),
    Told("flat", "python", ("NameError: name 'sanitize' is not defined",), "tuner"),
    Told("form", "python", ("ImportError: cannot import name 'a' from 'b'",), None),
    Told("gcc", "build", ("t.c:1:10: fatal error: Python.h: No such file or directory",), None),
    Told("glibc", "python", ("ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not",), None),
    Told("go", "log", ("panic: runtime error: invalid memory address or nil pointer dereferenc",), None),
    Told(
        "group",
        "python",
        (
            "ValueError: a",
            "TypeError: b",
            "ExceptionGroup: in (1 sub-exception)",
            "ExceptionGroup: many (2 sub-exceptions)",
        ),
        None,
    ),
    Told("html", "python", ("TypeError: 'NoneType' object is not <callable>",), None),
    Told("ipython8", "python", ("ModuleNotFoundError: No module named 'pkg_resources'",), "tensorboard"),
    Told(
        "ipython_colours",
        "python",
        ("ImportError: cannot import name 'nosuchname' from 'json' (/home/me/.py",),
        "thirdp",
    ),
    Told(
        "ipython_input", "python", ("TypeError: LoraConfig.__init__() got an unexpected keyword argument 'e",), "peft"
    ),
    Told(
        "ipython_session",
        "python",
        ("ImportError: cannot import name 'nosuchname' from 'json' (/home/me/.py",),
        "thirdp",
    ),
    Told(
        "java",
        "log",
        (
            'Exception in thread "main" java.lang.NullPointerException: Cannot invo',
            "Caused by: java.io.IOException: nope",
        ),
        None,
    ),
    Told("joblib", "python", ("ValueError: inner",), "joblib"),
    Told("journal", "python", ("ImportError: libcudart.so.12: cannot open shared object file: No such ",), "uvloop"),
    Told(
        "ld",
        "build",
        (
            "u.c:(.text+0xa): undefined reference to `foo'",
            "t.c:1:10: fatal error: Python.h: No such file or directory",
            "collect2: error: ld returned 1 exit status",
        ),
        None,
    ),
    Told("loader", "loader", ("python: error while loading shared libraries: libpython3.10.so.1.0: ca",), None),
    Told("logger", "python", ("ValueError: not enough memory",), "sglang"),
    Told("loguru", "python", ("ValueError: bad target modules",), "peft"),
    Told("mac", "python", ("ImportError: dlopen(/Users/me/venv/lib/python3.11/site-packages/torch/",), "torch"),
    Told(
        "mamba",
        "conda",
        (
            "error    libmamba Could not solve for environment specs",
            "critical libmamba Could not solve for environment specs",
        ),
        None,
    ),
    Told(
        "multierr",
        "python",
        ("ImportError: LlamaTokenizer requires the SentencePiece library but it ",),
        "transformers",
    ),
    Told("node", "log", ("Error: Cannot find module '/x.js'",), None),
    Told("noindent", "python", ("ValueError: Free memory on device (3.1/79.2 GiB) on startup is less th",), "vllm"),
    Told(
        "numpy2",
        "python",
        ("AttributeError: _ARRAY_API not found", "ImportError: numpy.core.multiarray failed to import"),
        "pyarrow",
    ),
    Told(
        "nvcc",
        "build",
        (
            "nvcc fatal   : Unsupported gpu architecture 'compute_120'",
            "CalledProcessError: Command '['ninja', '-v']' returned non-zero exit s",
            "RuntimeError: Error compiling objects for extension",
            "FAILED: x.o",
            "ninja: build stopped: subcommand failed.",
        ),
        None,
    ),
    Told("oneline", "python", ("ImportError: cannot import name 'X' from 'y'",), None),
    Told(
        "pip_build",
        "build",
        (
            "ModuleNotFoundError: No module named 'torch'",
            "error: subprocess-exited-with-error",
            "\u00d7 Getting requirements to build wheel did not run successfully.",
        ),
        "setuptools",
    ),
    Told(
        "pip_conflict",
        "pip",
        (
            "ERROR: Cannot install httpx==0.10 and openai==1.54.5 because these pac",
            "ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/en/lat",
        ),
        None,
    ),
    Told(
        "pip_python",
        "pip",
        (
            "ERROR: Could not find a version that satisfies the requirement numpy==",
            "ERROR: No matching distribution found for numpy==1.99",
        ),
        None,
    ),
    Told("pip_wheel", "pip", ("ERROR: flash_attn-2.7.2.post1+cu12torch2.5cxx11abiFALSE-cp310-cp310-li",), None),
    Told("poetry", "poetry", ("Because no versions of foo match >2.0,<3.0",), None),
    Told("processes", "python", ("RuntimeError: in worker",), None),
    Told("pytest", "python", ("ImportError: cannot import name 'int0' from 'numpy' (/v/lib/python3.11",), "pkg"),
    Told("quoted", "python", ("ImportError: /v/lib/python3.10/site-packages/vllm/_C.abi3.so: undefine",), "vllm"),
    Told(
        "ranks",
        "python",
        (
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU ",
            "ChildFailedError: ====================================================",
        ),
        "trl",
    ),
    Told(
        "ray",
        "python",
        ("ValueError: x", "KeyError: 'qwen3_next'", "RayTaskError(ValueError): ray::f() (pid=12, ip=10.0.0.1)"),
        "vllm",
    ),
    Told("recursion", "python", ("RecursionError: maximum recursion depth exceeded",), None),
    Told("retry", "python", ("KeyError: 'labels'",), None),
    Told("rich", "python", ("TypeError: LoraConfig.__init__() got an unexpected keyword argument 'c",), "peft"),
    Told("rust", "log", ("thread 'main' panicked at src/main.rs:2:5:",), None),
    Told(
        "sglang",
        "python",
        ("ImportError: libnuma.so.1: cannot open shared object file: No such fil", "Killed"),
        "sgl_kernel",
    ),
    Told(
        "slurm",
        "python",
        ("ModuleNotFoundError: No module named 'apex'", "srun: error: node1: task 0: Exited with exit code 1"),
        None,
    ),
    Told("spawn", "python", ("ModuleNotFoundError: No module named 'nosuch'", "ProcessRaisedException"), "deepspeed"),
    Told("syntax", "python", ("SyntaxError: invalid syntax",), None),
    Told("term", "log", ("terminate called after throwing an instance of 'std::runtime_error'",), None),
    Told("threadexc", "python", ("ValueError: in thread",), None),
    Told(
        "tool_any",
        "python",
        (
            "ImportError: cannot import name 'nosuchname' from 'json' (/home/me/.py",
            "ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions)",
        ),
        "thirdp",
    ),
    Told("tool_job", "python", ("ImportError: cannot import name 'nosuchname' from 'json' (/home/me/.py",), "thirdp"),
    Told(
        "tool_pyt",
        "python",
        ("ImportError: cannot import name 'nosuchname' from 'json' (/home/me/.py",),
        "thirdp",
    ),
    Told("tool_richy", "python", ("ImportError: cannot import name 'nosuchname' from 'json'",), "thirdp"),
    Told("tool_typ", "python", ("ImportError: cannot import name 'nosuchname' from 'json'",), "thirdp"),
    Told("unpickle", "python", ("UnpicklingError: Weights only load failed. This file can still be load",), "torch"),
    Told(
        "uv_build",
        "build",
        ("ModuleNotFoundError: No module named 'torch'", "error: Failed to build `flash-attn==2.7.4.post1`"),
        "setuptools",
    ),
    Told("uv_conflict", "uv", ("error: No solution found when resolving dependencies",), None),
    Told("uv_none", "uv", ("error: No solution found when resolving dependencies",), None),
    Told("uvold", "uv", ("\u00d7 No solution found when resolving dependencies:",), None),
    Told(
        "vllm_prefix",
        "python",
        (
            "RuntimeError: No CUDA GPUs are available",
            "RuntimeError: Engine core initialization failed. See root cause above.",
        ),
        "torch",
    ),
    Told(
        "vscode", "python", ("ImportError: tokenizers>=0.20,<0.21 is required for a normal functioni",), "transformers"
    ),
    Told("windows", "python", ("ImportError: cannot import name 'cached_download' from 'huggingface_hu",), "diffusers"),
)
