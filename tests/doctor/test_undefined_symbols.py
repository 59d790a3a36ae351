"""Missing symbols: whose they are, which torch has them, what to install."""

import pytest
from packaging.version import Version

from doctor.diagnosis.mangled import read_name
from doctor.diagnosis.torch_extensions import distribution_of, release_for_torch, torch_built_for, torch_of_wheel
from doctor.diagnosis.undefined_symbols import find_undefined_symbol
from doctor.knowledge.torch_symbols import torch_versions, torch_with
from tests.doctor.known import knowing
from tests.doctor.pasted import only, pasted, requirements, said

NEW = "_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
SITE = "/v/lib/python3.11/site-packages"
KNOWN = knowing(
    flash_attn={"2.7.4.post1": (), "2.8.0.post2": (), "2.8.3": ()},
    sglang={
        "0.4.6": ("torch==2.6.0", "sgl-kernel==0.1.1"),
        "0.4.8": ("torch==2.7.1", "sgl_kernel==0.1.9; extra == 'srt'"),
    },
)


@pytest.mark.parametrize(
    "symbol, name, new",
    [
        (NEW, "c10::Error::Error", True),
        ("_ZN5torch3jit17parseSchemaOrNameERKSsb", "torch::jit::parseSchemaOrName", False),
        ("_ZN3c104cuda9SetDeviceEi", "c10::cuda::SetDevice", None),
        ("_ZTIN5torch8autograd4NodeE", "torch::autograd::Node", None),
        ("_ZN3c1015SmallVectorBaseIjE8grow_podEPvmm", "c10::SmallVectorBase::grow_pod", None),
        ("c10::MessageLogger::MessageLogger(char const*)", "c10::MessageLogger::MessageLogger", None),
        ("_ZNSt15__exception_ptr13exception_ptr9_M_addrefEv", "std::__exception_ptr::exception_ptr::_M_addref", None),
    ],
)
def test_a_mangled_name_is_read(symbol, name, new):
    assert (read_name(symbol).text, read_name(symbol).new_strings) == (name, new)
    assert read_name("cget_col_row_stats") is None


def test_the_table_of_torchs_symbols_answers_by_release():
    assert torch_versions()[0] == "1.11" and torch_versions()[-1] == "2.14"
    assert torch_with("_ZN5torch3jit17parseSchemaOrNameERKSsb") == ["2.4", "2.5", "2.6"]
    assert torch_with("_ZN3c104cuda9SetDeviceEi") == ["2.1", "2.2"]
    assert torch_with("_ZN3c104cuda9SetDeviceEa") == ["2.3", "2.4", "2.5", "2.6", "2.7"]
    assert torch_with(NEW)[0] == "2.7"
    assert torch_with("_ZN3c1012not_a_symbolEv") is None


@pytest.mark.parametrize(
    "path, name",
    [
        (f"{SITE}/flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so", "flash-attn"),
        ("vllm/_C.abi3.so", "vllm"),
        (f"{SITE}/sgl_kernel/sm100/common_ops.abi3.so", "sgl-kernel"),
        (f"{SITE}/torchvision/_C.so", "torchvision"),
        ("selective_scan_cuda.cpython-310-x86_64-linux-gnu.so", "mamba-ssm"),
        (f"{SITE}/torch/lib/libtorch_cuda.so", None),
    ],
)
def test_a_file_tells_its_distribution(path, name):
    assert distribution_of(path) == name


def test_which_torch_a_release_is_for():
    assert torch_of_wheel("flash_attn-2.8.3+cu12torch2.6cxx11abiFALSE-cp312-cp312-linux_x86_64.whl") == "2.6"
    assert torch_of_wheel("torch_scatter-2.1.2+pt26cu124-cp311-cp311-linux_x86_64.whl") == "2.6"
    metadata = KNOWN.metadata
    assert torch_built_for("sgl-kernel", Version("0.1.9"), metadata) == ("2.7",)
    assert torch_built_for("torchvision", Version("0.21.0"), metadata) == ("2.6",)
    assert release_for_torch("flash-attn", "2.6", metadata) == "flash-attn==2.7.4.post1"
    assert release_for_torch("sgl-kernel", "2.6", metadata) == "sgl-kernel==0.1.1"


def test_an_extension_of_another_torch_is_moved_to_the_torch_that_is_here():
    text = f"ImportError: {SITE}/flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so: undefined symbol: {NEW}"
    found = only(find_undefined_symbol, pasted(text, flash_attn="2.8.0.post2", torch="2.6.0"), KNOWN)
    assert found.branch == "import/binary_abi" and "cxx11abiFALSE" in found.verdict
    assert requirements(found)[0] == ("flash-attn==2.7.4.post1",) and found.culprits == ("flash-attn", "torch")


def test_of_a_release_with_a_wheel_for_this_torch_another_wheel_was_installed():
    symbol = "_ZNK3c1011StorageImpl27throw_data_ptr_access_errorEv"
    text = f"ImportError: {SITE}/flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so: undefined symbol: {symbol}"
    found = only(find_undefined_symbol, pasted(text, flash_attn="2.8.3", torch="2.5.1"), KNOWN)
    assert "torch 2.6 to 2.8" in found.verdict and "--no-cache-dir" in found.changes[0].commands[0]
    assert "flash-attn==2.8.3" in found.changes[0].commands[0] and requirements(found)[0] == ("torch==2.8.*",)


def test_where_the_extension_is_right_torch_is_moved():
    text = (
        f"ImportError: {SITE}/sgl_kernel/common_ops.abi3.so: undefined symbol: _ZN5torch3jit17parseSchemaOrNameERKSsb"
    )
    found = only(find_undefined_symbol, pasted(text, sgl_kernel="0.1.1", torch="2.7.0"), KNOWN)
    assert requirements(found)[:2] == [("torch==2.6.0+cu124",), ("sgl-kernel==0.1.9",)]
    assert "torch 2.4 to 2.6" in " ".join(found.evidence)
    pinned = only(find_undefined_symbol, pasted(text, sgl_kernel="0.1.1", torch="2.7.0", torchvision="0.22.0"), KNOWN)
    assert requirements(pinned)[0] == ("sgl-kernel==0.1.9",)


def test_a_name_that_is_cut_off_still_tells_the_era():
    cut = "_ZN2at4_ops15to_dtype_layout4callERKNS_6TensorEN3c108optionalINS5_10Sc"
    text = f"ImportError: {SITE}/odd_ops/_C.so: undefined symbol: {cut}"
    found = only(find_undefined_symbol, pasted(text, torch="2.6.0"), KNOWN)
    assert "torch 1.11 to 2.1" in found.verdict and requirements(found) == [("torch==2.1.*",)]


def test_of_an_unknown_extension_the_symbol_tells_the_torch():
    text = "ImportError: /x/site-packages/odd_ops/_C.so: undefined symbol: _ZN3c104cuda9SetDeviceEi"
    found = only(find_undefined_symbol, pasted(text, torch="2.6.0"), KNOWN)
    assert "torch 2.1 to 2.2" in found.verdict and requirements(found) == [("torch==2.2.*",)]


@pytest.mark.parametrize(
    "text, branch, sign",
    [
        (
            "libtorch_cuda.so: undefined symbol: __nvJitLinkAddData_12_1, version libnvJitLink.so.12",
            "cuda/version_mismatch",
            "libnvJitLink",
        ),
        (f"{SITE}/torch/lib/libtorch_cuda.so: undefined symbol: ncclCommRegister", "cuda/version_mismatch", "libnccl"),
        ("/opt/conda/lib/libtorch_cpu.so: undefined symbol: iJIT_NotifyEvent", "import/binary_abi", "MKL"),
        ("x.cpython-310-x86_64-linux-gnu.so: undefined symbol: _PyGen_Send", "import/binary_abi", "Python 3.10"),
        (
            "libp11-kit.so.0: undefined symbol: ffi_type_pointer, version LIBFFI_BASE_7.0",
            "import/system_library",
            "libp11-kit",
        ),
        ("x.so: undefined symbol: _ZSt28__throw_bad_array_new_lengthv", "import/system_library", "libstdc++"),
        ("bitsandbytes/libbitsandbytes_cpu.so: undefined symbol: cget_col_row_stats", "cuda/not_found", "CPU"),
        ("x.so: undefined symbol: _ZN6google8protobuf7MessageD2Ev", "import/binary_abi", "google::protobuf"),
    ],
)
def test_symbols_that_are_not_torchs_are_given_to_their_owners(text, branch, sign):
    found = only(find_undefined_symbol, pasted(f"ImportError: {text}"), KNOWN)
    assert found.branch == branch and sign in found.verdict
    assert found.changes and found.evidence[0].endswith(text)


def test_a_text_without_a_symbol_says_nothing():
    assert said(find_undefined_symbol, pasted("ImportError: cannot import name 'x' from 'y'"), KNOWN) == []
