"""Packages whose compiled parts are made for one release of torch: for which, and which release is for a given one."""

import re
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

# The module that a file of compiled code belongs to (its own name or its folder's) -> distribution.
MODULES: tuple[tuple[str, str], ...] = (
    (r"flash_attn_3|flash_attn_interface", "flash-attn-3"),
    (r"flash_attn|rotary_emb|dropout_layer_norm|fused_dense_lib|xentropy_cuda_lib", "flash-attn"),
    (r"vllm_flash_attn|vllm", "vllm"),
    (r"sgl_kernel", "sgl-kernel"),
    (r"sglang_kernel", "sglang-kernel"),
    (r"xformers", "xformers"),
    (r"torchvision", "torchvision"),
    (r"torchaudio|_torchaudio", "torchaudio"),
    (r"torchtext", "torchtext"),
    (r"torchcodec", "torchcodec"),
    (r"torchao", "torchao"),
    (r"torch_sparse", "torch-sparse"),
    (r"torch_scatter", "torch-scatter"),
    (r"torch_cluster", "torch-cluster"),
    (r"torch_spline_conv", "torch-spline-conv"),
    (r"pyg_lib", "pyg-lib"),
    (r"causal_conv1d", "causal-conv1d"),
    (r"mamba_ssm|selective_scan_cuda", "mamba-ssm"),
    (r"auto_?gptq|autogptq_cuda\w*", "auto-gptq"),
    (r"gptqmodel\w*", "gptqmodel"),
    (r"awq_ext|awq_inference_engine|awq", "autoawq-kernels"),
    (r"exllamav2_ext|exllamav2", "exllamav2"),
    (r"exllamav3", "exllamav3"),
    (r"flashinfer", "flashinfer-python"),
    (r"deep_ep\w*", "deep-ep"),
    (r"deep_gemm\w*", "deep-gemm"),
    (r"transformer_engine\w*", "transformer-engine"),
    (r"apex\w*|amp_C|fused_layer_norm_cuda|fused_weight_gradient\w*", "apex"),
    (r"natten|libnatten", "natten"),
    (r"detectron2", "detectron2"),
    (r"pytorch3d", "pytorch3d"),
    (r"mmcv", "mmcv"),
    (r"spconv", "spconv"),
    (r"fairseq\w*", "fairseq"),
    (r"deepspeed|fused_adam|cpu_adam|utils_op|transformer_inference|async_io", "deepspeed"),
    (r"functorch", "functorch"),
    (r"intel_extension_for_pytorch", "intel-extension-for-pytorch"),
    (r"grouped_gemm\w*", "grouped-gemm"),
    (r"megablocks\w*", "megablocks"),
    (r"lmdeploy|_turbomind", "lmdeploy"),
    (r"llama_cpp", "llama-cpp-python"),
    (r"bitsandbytes\w*", "bitsandbytes"),
    (r"onnxruntime\w*", "onnxruntime"),
    (r"decord", "decord"),
    (r"sageattention|_qattn\w*|_fused", "sageattention"),
    (
        r"nvdiffrast\w*|simple_knn|diff_gaussian_rasterization|tinycudann\w*"
        r"|MultiScaleDeformableAttention|groundingdino|_ext",
        "",
    ),
)

# Releases -> minor versions of torch that wheels were published for. From their releases' file names and pins.
BUILDS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "flash-attn": (
        ("==2.8.3", ("2.4", "2.5", "2.6", "2.7", "2.8")),
        (">=2.8,<2.8.3", ("2.4", "2.5", "2.6", "2.7")),
        (">=2.7.4,<2.8", ("2.2", "2.3", "2.4", "2.5", "2.6")),
        (">=2.7,<2.7.4", ("2.1", "2.2", "2.3", "2.4", "2.5")),
        (">=2.6,<2.7", ("1.12", "1.13", "2.0", "2.1", "2.2", "2.3", "2.4")),
        (">=2.5,<2.6", ("1.12", "1.13", "2.0", "2.1", "2.2", "2.3")),
        (">=2.3,<2.5", ("1.12", "1.13", "2.0", "2.1")),
        (">=2,<2.3", ("1.12", "1.13", "2.0")),
    ),
    "sgl-kernel": (
        ("<0.1.1", ("2.5",)),
        (">=0.1.1,<0.1.5", ("2.6",)),
        (">=0.1.5,<0.3", ("2.7",)),
        (">=0.3,<0.3.17", ("2.8",)),
        (">=0.3.17", ("2.9",)),
    ),
    "torchcodec": (
        ("==0.0.*", ("2.4",)),
        ("==0.1.*", ("2.5",)),
        ("==0.2.*", ("2.6",)),
        (">=0.3,<0.6", ("2.7",)),
        (">=0.6,<0.8", ("2.8",)),
        (">=0.8,<0.10", ("2.9",)),
        (">=0.10,<0.11", ("2.10",)),
    ),
    "auto-gptq": (("==0.7.*", ("2.2",)), ("==0.6.*", ("2.1",)), (">=0.4,<0.6", ("2.0", "2.1")), ("<0.4", ("2.0",))),
    "autoawq-kernels": (
        (">=0.0.9", ("2.5", "2.6")),
        ("==0.0.8", ("2.4",)),
        ("==0.0.7", ("2.3",)),
        ("==0.0.6", ("2.2",)),
    ),
    "mmcv": ((">=2.1,<2.2", ("2.1",)), ("==2.2.*", ("2.1", "2.2", "2.3", "2.4"))),
    "torchtext": (("==0.18.*", ("2.3",)), ("==0.17.*", ("2.2",)), ("==0.16.*", ("2.1",)), ("==0.15.*", ("2.0",))),
}
# flash-attn's wheels for torch 2.6 of these releases want the new C++ ABI although their names say cxx11abiFALSE.
WRONGLY_NAMED = {"flash-attn": SpecifierSet(">=2.8,<2.8.4")}
# Packages whose releases pin torch and one of the above, and so say what belongs together.
HOSTS: dict[str, tuple[str, ...]] = {
    "sgl-kernel": ("sglang",),
    "sglang-kernel": ("sglang",),
    "flashinfer-python": ("sglang", "vllm"),
    "xformers": ("vllm",),
    "torchao": ("sglang",),
    "torchvision": ("vllm",),
    "torchaudio": ("vllm",),
    "outlines": ("vllm",),
    "compressed-tensors": ("vllm",),
}


def distribution_of(path: str) -> str | None:
    """Return the distribution that a file of compiled code belongs to.

    Args:
        path: ".../site-packages/flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so", or a module's name.

    Returns:
        Its name; None where the table doesn't know it.
    """
    inside = re.split(r"(?:site|dist)-packages[/\\]", path.replace("\\", "/"))[-1]
    for part in (inside.split("/")[0], inside.split("/")[-1]):
        stem = re.sub(r"^lib(?=[a-z_]*torch|natten)|\.libs$|\..*", "", part)
        for pattern, name in MODULES:
            if re.match(rf"(?:{pattern})(?:$|_|\d)", stem, re.IGNORECASE) or re.fullmatch(pattern, stem, re.IGNORECASE):
                return name or None
    return None


def torch_of_wheel(text: str) -> str | None:
    """Return the minor version of torch that a wheel's name tells: "+cu12torch2.6cxx11abiFALSE", "+pt26cu124"."""
    found = re.search(r"\+(?:cu\d+)?torch-?(\d+\.\d+)", text) or re.search(
        r"torch(\d\.\d+)(?:\.\d+)?[-_.+]?cxx11abi", text
    )
    if found:
        return found[1]
    found = re.search(r"\+pt(\d)\.?(\d{1,2})\d?cu", text)
    return f"{found[1]}.{found[2]}" if found else None


def torch_built_for(project: str, version: Version, metadata: Any) -> tuple[str, ...]:
    """Return the minor versions of torch that a release's published builds are for; () where not known."""
    if version.local:
        named = torch_of_wheel(f"+{version.local}")
        if named:
            return (named,)
    if project == "torchvision" and version.major == 0 and version.minor >= 15:
        return (f"2.{version.minor - 15}",)
    if project == "torchaudio" and version.major == 2:
        return (f"2.{version.minor}",)
    for release in metadata.releases(project):
        if release.version == version:
            pinned = _torch_of(release.requires)
            if pinned:
                return (pinned,)
    found = {torch for release, torch in _of_hosts(project, metadata) if release.public == version.public}
    if found:
        return tuple(sorted(found))
    for specifier, builds in BUILDS.get(project, ()):
        if SpecifierSet(specifier).contains(version, prereleases=True):
            return builds
    return ()


def release_for_torch(project: str, torch: str, metadata: Any) -> str | None:
    """Return the requirement of the newest release that is built for a minor version of torch; None where not known."""
    minor = int(torch.split(".")[1])
    if project == "torchvision" and torch.startswith("2."):
        return f"torchvision==0.{minor + 15}.*"
    if project == "torchaudio" and torch.startswith("2."):
        return f"torchaudio=={torch}.*"
    of_hosts = [release for release, built in _of_hosts(project, metadata) if built == torch]
    if of_hosts:
        return f"{project}=={max(of_hosts)}"
    for release in reversed(metadata.releases(project)):
        if not release.yanked and not release.version.is_prerelease and _torch_of(release.requires) == torch:
            return f"{project}=={release.version}"
    for specifier, builds in BUILDS.get(project, ()):
        if torch not in builds:
            continue
        allowed = SpecifierSet(specifier)
        newest = [one.version for one in metadata.releases(project) if allowed.contains(one.version) and not one.yanked]
        wrong = WRONGLY_NAMED.get(project) if torch == "2.6" else None
        if wrong is not None and any(
            one in wrong for one in (*newest, *map(Version, re.findall(r"[>=]=([\d.]+)", specifier)))
        ):
            continue
        return f"{project}=={max(newest)}" if newest else f"{project}{specifier}"
    return None


def torch_with_triton(least: str, knowledge: Any) -> tuple[str, ...]:
    """Return the range of torch's releases that declare a triton of a version or newer; () where none is known.

    Args:
        least: version of triton, "3.3".
        knowledge: released metadata; None where there is none.
    """
    for release in knowledge.metadata.releases("torch") if knowledge is not None else ():
        declared = _pin("triton", release.requires)
        if declared is not None and declared >= Version(least) and not release.version.is_prerelease:
            return (f"torch>={release.version.major}.{release.version.minor}",)
    return ()


def _of_hosts(project: str, metadata: Any) -> list[tuple[Version, str]]:
    """Return what hosts' releases pin together: a release of the project and the minor version of torch."""
    found = []
    for host in HOSTS.get(project, ()):
        for release in metadata.releases(host):
            torch, pinned = _torch_of(release.requires), _pin(project, release.requires)
            if torch and pinned:
                found.append((pinned, torch))
    return found


def _torch_of(requires: tuple[str, ...]) -> str | None:
    """Return the minor version of torch that requirements pin; None where they don't."""
    version = _pin("torch", requires)
    return f"{version.major}.{version.minor}" if version else None


def _pin(name: str, requires: tuple[str, ...]) -> Version | None:
    """Return the version that requirements pin a distribution to; None where they don't."""
    for text in requires:
        if not re.match(rf"{re.escape(name)}\b(?![-\w])", text.replace("_", "-"), re.IGNORECASE):
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        for one in requirement.specifier:
            if one.operator == "==" and not one.version.endswith("*"):
                return Version(one.version)
    return None
