"""Facts that the shipped snapshot and table must hold: they were found by installing and by reading wheels."""

from datetime import date

import pytest
from packaging.version import Version

from doctor.knowledge.base import Knowledge
from doctor.knowledge.metadata import SHIPPED as METADATA
from doctor.knowledge.metadata import Metadata
from doctor.knowledge.symbols import SHIPPED as SYMBOLS
from doctor.knowledge.symbols import Symbols, covers

LARGEST = 4 << 20
# Breakages of which a version is known: the name, module or keyword and its range.
NAMES = [
    ("transformers", "transformers", "EncoderDecoderCache", ">=4.43.0"),
    ("transformers", "transformers", "top_k_top_p_filtering", "<4.39.0"),
    ("transformers", "transformers", "AutoModelForCausalLM", ""),
    ("trl", "trl.trainer.utils", "ConstantLengthDataset", "<0.20.0"),
    ("huggingface-hub", "huggingface_hub", "cached_download", "<0.26.0"),
    ("huggingface-hub", "huggingface_hub", "HfFolder", "<1.0.0"),
    ("pyarrow", "pyarrow", "PyExtensionType", "<21.0.0"),
    ("torch", "torch.distributed.elastic.agent.server.api", "log", "<2.4.0"),
]
PARAMETERS = [
    ("trl", "SFTTrainer.__init__", "max_seq_length", "<0.13.0"),
    ("trl", "SFTTrainer.__init__", "tokenizer", "<0.16.0"),
    ("accelerate", "Accelerator.unwrap_model", "keep_torch_compile", ">=1.3.0"),
    ("httpx", "Client.__init__", "proxies", "<0.28.0"),
]
IMPORTERS = [
    ("transformers", "EncoderDecoderCache", "peft", "0.14.0", True),
    ("transformers", "EncoderDecoderCache", "peft", "0.13.2", False),
    ("transformers", "top_k_top_p_filtering", "trl", "0.7.11", True),
    ("transformers", "top_k_top_p_filtering", "trl", "0.8.0", False),
    ("transformers", "HybridCache", "peft", "0.17.1", True),
    ("transformers", "HybridCache", "peft", "0.18.0", False),
    ("pyarrow", "PyExtensionType", "datasets", "2.14.6", True),
    ("pyarrow", "PyExtensionType", "datasets", "2.14.7", False),
    ("huggingface_hub", "cached_download", "diffusers", "0.28.0", True),
    ("huggingface_hub", "cached_download", "diffusers", "0.30.0", False),
    ("huggingface_hub", "HfFolder", "gradio", "4.44.1", True),
    ("huggingface_hub", "HfFolder", "gradio", "6.0.0", False),
    ("pkg_resources", "", "tensorboard", "2.20.0", True),
    ("pkg_resources", "", "tensorboard", "2.21.0", False),
    ("torch.distributed.elastic.agent.server.api", "log", "deepspeed", "0.14.0", True),
]


@pytest.fixture(scope="module")
def metadata():
    return Metadata(METADATA)


@pytest.fixture(scope="module")
def symbols():
    return Symbols(SYMBOLS)


def ends(spans):
    """Return where spans end and begin, the oldest that was read as the beginning of all."""
    return ",".join(span.specifier for span in spans)


def test_both_are_small_and_dated():
    assert METADATA.stat().st_size <= LARGEST and SYMBOLS.stat().st_size <= LARGEST
    knowledge = Knowledge()
    assert knowledge.metadata.date >= "2026-11-28" and knowledge.symbols.date >= "2026-11-28" and knowledge.rules


@pytest.mark.parametrize(("project", "module", "name", "specifier"), NAMES)
def test_names_of_releases(symbols, project, module, name, specifier):
    found = ends(symbols.names(project, module, name))
    assert found == specifier or (specifier.startswith("<") and found.endswith(specifier) and found.count(",") < 2)


@pytest.mark.parametrize(("project", "function", "parameter", "specifier"), PARAMETERS)
def test_parameters_of_releases_that_are_shipped(symbols, project, function, parameter, specifier):
    found = ends(symbols.parameters(project, function, parameter))
    assert found == specifier or (specifier.startswith("<") and found.endswith(specifier) and found.count(",") < 2)


@pytest.mark.parametrize(("module", "name", "project", "version", "expected"), IMPORTERS)
def test_who_imports_what(symbols, module, name, project, version, expected):
    uses = [use for use in symbols.importers(module, name) if use.project == project]
    assert any(use.in_file and covers(use.spans, Version(version)) for use in uses) is expected


def test_what_importing_peft_and_datasets_alone_needs(symbols):
    for module, name, project in (
        ("transformers", "HybridCache", "peft"),
        ("transformers", "EncoderDecoderCache", "peft"),
        ("pyarrow", "PyExtensionType", "datasets"),
    ):
        assert any(use.at_import for use in symbols.importers(module, name) if use.project == project)


def test_who_passes_what_accelerate_does_not_take(symbols):
    (use,) = [use for use in symbols.callers("unwrap_model", "keep_torch_compile") if use.project == "transformers"]
    assert covers(use.spans, Version("4.52.4")) and not covers(use.spans, Version("4.40.0"))
    found = [use for use in symbols.callers("Client.__init__", "proxies") if use.project == "openai"]
    assert any(covers(use.spans, Version("1.54.0")) for use in found)
    assert not any(covers(use.spans, Version("1.57.0")) for use in found)


def test_model_types_of_transformers(symbols):
    (span,) = symbols.model_types("transformers", "llama4")
    assert span.first == Version("4.51.0")
    (span,) = symbols.model_types("transformers", "starcoder2")
    assert span.first == Version("4.39.0")
    assert symbols.model_types("transformers", "no_such_model") == ()


@pytest.mark.parametrize(
    ("project", "python", "newest"),
    [
        ("vllm", "3.15", "0.8.3"),
        ("axolotl", "3.9", "0.5.2"),
        ("sglang", "3.9", "0.4.10.post2"),
        ("vllm", None, "0.33.0"),
    ],
)
def test_the_newest_release_of_a_python(metadata, project, python, newest):
    before = date(2026, 11, 28)
    assert str(metadata.newest(project, python=python, before=before).version) == newest


def test_a_project_of_pre_releases_alone(metadata):
    assert metadata.newest("flash-attn-4") is None and metadata.prereleases("flash-attn-4") > 10
    assert metadata.releases("flash-attn-4")[-1].version.is_prerelease


def test_what_a_release_declares(metadata):
    newest = metadata.newest("trl", before=date(2026, 11, 28))
    assert (str(newest.version), newest.uploaded) == ("1.16.0", date(2026, 10, 15))
    assert "transformers>=4.56.2" in newest.requires and newest.wheels == ("py3-none-any",)
    wheels = metadata.newest("sglang", before=date(2026, 11, 28)).wheels
    assert all("manylinux_2_34" in tags for tags in wheels)


@pytest.mark.parametrize(
    ("module", "owner"),
    [
        ("cv2", "opencv-python"), ("PIL", "pillow"), ("sklearn", "scikit-learn"), ("yaml", "pyyaml"),
        ("bs4", "beautifulsoup4"), ("skimage", "scikit-image"), ("dotenv", "python-dotenv"), ("jwt", "pyjwt"),
        ("Crypto", "pycryptodome"), ("google.protobuf", "protobuf"), ("attr", "attrs"), ("dateutil", "python-dateutil"),
        ("serial", "pyserial"), ("OpenSSL", "pyopenssl"), ("llama_cpp", "llama-cpp-python"), ("fitz", "pymupdf"),
        ("flash_attn", "flash-attn"), ("pkg_resources", "setuptools"), ("faiss", "faiss-cpu"), ("art", "openpipe-art"),
        ("transformers.utils", "transformers"), ("torch", "torch"), ("agents", "openai-agents"),
    ],
)  # fmt: skip
def test_the_usual_owner_of_a_module_comes_first(metadata, module, owner):
    assert metadata.owners(module)[0] == owner
