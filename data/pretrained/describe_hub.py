"""Writes data/zoo/hub.yaml: well-known models of three hubs, with facts that the libraries know: no weights are loaded.

Run it with `python -m data.pretrained.describe_hub` where requirements-images.txt is installed (a few minutes).
"""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from constants.paths import ZOO_DIR
from data.pretrained.hf_source import body_of
from data.pretrained.input_spec import InputSpec
from data.pretrained.model_costs import count_gflops_of
from data.pretrained.timm_source import timm_input
from data.pretrained.torchvision_import import import_timm, import_torchvision
from data.pretrained.torchvision_source import torchvision_input

_TIMM = """
resnet18.a1_in1k resnet34.a1_in1k resnet50.a1_in1k resnet101.a1h_in1k wide_resnet50_2.racm_in1k
resnext50_32x4d.a1h_in1k seresnext50_32x4d.racm_in1k resnetv2_50x1_bit.goog_in21k_ft_in1k densenet121.ra_in1k
regnety_004.tv2_in1k regnety_016.tv2_in1k regnety_032.ra_in1k mobilenetv2_100.ra_in1k
mobilenetv3_small_100.lamb_in1k mobilenetv3_large_100.ra_in1k mobilenetv4_conv_small.e2400_r224_in1k
mobilenetv4_conv_medium.e500_r256_in1k efficientnet_b0.ra_in1k efficientnet_b2.ra_in1k
efficientnet_b3.ra2_in1k tf_efficientnetv2_s.in21k_ft_in1k rexnet_100.nav_in1k ghostnet_100.in1k
edgenext_small.usi_in1k mobilevit_s.cvnets_in1k fastvit_t8.apple_in1k convnext_nano.in12k_ft_in1k
convnext_tiny.fb_in22k_ft_in1k convnext_small.fb_in22k_ft_in1k convnext_base.fb_in22k_ft_in1k
convnextv2_atto.fcmae_ft_in1k convnextv2_tiny.fcmae_ft_in22k_in1k vit_tiny_patch16_224.augreg_in21k_ft_in1k
vit_small_patch16_224.augreg_in21k_ft_in1k vit_base_patch32_224.augreg_in21k_ft_in1k
vit_base_patch16_224.augreg2_in21k_ft_in1k vit_base_patch16_clip_224.openai vit_base_patch16_clip_224.laion2b
vit_base_patch16_siglip_224.webli vit_small_patch14_dinov2.lvd142m vit_base_patch14_dinov2.lvd142m
deit_tiny_patch16_224.fb_in1k deit3_small_patch16_224.fb_in22k_ft_in1k
beit_base_patch16_224.in22k_ft_in22k_in1k swin_tiny_patch4_window7_224.ms_in22k_ft_in1k
swin_small_patch4_window7_224.ms_in22k_ft_in1k swinv2_tiny_window8_256.ms_in1k maxvit_tiny_tf_224.in1k
caformer_s18.sail_in22k_ft_in1k tiny_vit_5m_224.dist_in22k_ft_in1k tiny_vit_21m_224.dist_in22k_ft_in1k
"""
_TORCHVISION = ("resnet50", "regnet_y_1_6gf", "mobilenet_v3_large", "efficientnet_v2_s", "convnext_tiny", "swin_v2_t",
                "vit_b_16")  # fmt: skip
# Their architectures, by the classes of transformers: a hub's configuration can't be read without the hub.
_TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "google/vit-base-patch16-224": ("ViTForImageClassification", {"num_labels": 1000}),
    "google/vit-base-patch16-224-in21k": ("ViTModel", {}),
    "microsoft/resnet-50": ("ResNetForImageClassification", {"num_labels": 1000}),
    "facebook/convnext-tiny-224": ("ConvNextForImageClassification", {"num_labels": 1000}),
    "facebook/deit-small-patch16-224": (
        "ViTForImageClassification",
        {"num_labels": 1000, "hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    ),
    "facebook/dinov2-small": ("Dinov2Model", {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518}),
}
_HEAD = """# Well-known pretrained models by name, for recommend.py PHOTOS --zoo hub: names and facts, no weights.
# Written by `python -m data.pretrained.describe_hub` with {versions}.
# Edit a copy of your own.
#
# Where each fact is from:
#   timm         licence and input size from timm's pretrained_cfg; parameters and gflops counted on the architecture,
#                built without weights. timm has no accuracies in its package, so none are stated.
#   torchvision  input size and accuracy (top-1 on ImageNet) from the weights' own meta data; parameters and gflops
#                counted. Its code is BSD-3-Clause; it states no licence for weights, so none is stated.
#   hf           parameters and gflops counted on the architecture as transformers builds it; the licence is on the
#                model's page of the hub, which was not asked, so none is stated.
# gflops: billions of multiply-adds for one image of that size.
models:
"""


def main() -> int:
    """Write the manifest."""
    lines = []
    for describe in (_timm_lines, _torchvision_lines, _transformers_lines):
        for line in describe():
            sys.stderr.write(f"{line}\n")
            lines.append(line)
    modules = (import_timm(), import_torchvision(), importlib.import_module("transformers"))
    versions = ", ".join(f"{module.__name__} {module.__version__}" for module in modules)
    Path(ZOO_DIR / "hub.yaml").write_text(_HEAD.format(versions=versions) + "\n".join(lines) + "\n", encoding="utf-8")
    return 0


def _timm_lines() -> Iterator[str]:
    timm, settings = import_timm(), import_timm("timm.data")
    for name in _TIMM.split():
        if name not in timm.list_pretrained(name):
            raise SystemExit(f"timm {timm.__version__} has no {name}")
        network = timm.create_model(name, pretrained=False).eval()
        spec = timm_input(settings.resolve_model_data_config(network))
        yield _line(f"timm/{name}", network, spec, network.pretrained_cfg.get("license"), None)


def _torchvision_lines() -> Iterator[str]:
    models = import_torchvision("torchvision.models")
    for name in _TORCHVISION:
        weights = models.get_model_weights(name).DEFAULT
        network = models.get_model(name, weights=None).eval()
        accuracy = round(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100, 5)
        yield _line(f"torchvision/{name}.{weights.name}", network, torchvision_input(weights), None, accuracy)


def _transformers_lines() -> Iterator[str]:
    transformers = importlib.import_module("transformers")
    for name, (architecture, arguments) in _TRANSFORMERS.items():
        maker = getattr(transformers, architecture)
        network = body_of(maker(maker.config_class(**arguments)))
        # DINOv2 was trained at 518 pixels, and its image processor gives it 224.
        yield _line(f"hf/{name}", network.eval(), InputSpec((224, 224)), None, None, sized=False)


def _line(
    name: str, network: nn.Module, spec: InputSpec, licence: str | None, accuracy: float | None, sized: bool = True
) -> str:
    facts = {
        "model": name, "licence": licence, "parameters": sum(each.numel() for each in network.parameters()),
        "gflops": round(count_gflops_of(network, spec), 3), "source_accuracy": accuracy,
        "input": f"{{size: [{spec.size[0]}, {spec.size[1]}]}}" if sized else None,
    }  # fmt: skip
    return f"  - {{{', '.join(f'{key}: {value}' for key, value in facts.items() if value is not None)}}}"


if __name__ == "__main__":
    sys.exit(main())
