"""Features of photographs: `image_features` against a plain loop over timm: `python bench/images.py`.

Both decode the same JPEG files, do to them what timm says, run the same network with the same batch on the same cores:
the plain loop in a `DataLoader` with as many workers as `image_features` has threads. Rounds are interleaved; their
median counts.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import installed, processor
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader, Dataset

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from data.images.image_dataset import ImageDataset, read_image_dataset  # noqa: E402
from data.pretrained.image_features import image_features  # noqa: E402
from data.pretrained.loaded_network import LoadedNetwork  # noqa: E402
from data.pretrained.network_head import find_head  # noqa: E402
from data.pretrained.pretrained_model import PretrainedModel  # noqa: E402
from data.pretrained.timm_source import timm_input  # noqa: E402
from data.pretrained.torchvision_import import import_timm  # noqa: E402
from data.pretrained.zoo_manifest import ZooEntry  # noqa: E402

MODELS = ("mobilenetv3_small_100", "resnet18", "convnext_atto", "vit_tiny_patch16_224")


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256, help="photographs (default: 256)")
    parser.add_argument("--batch", type=int, default=32, help="images of a pass (default: 32)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median counts (default: 5)")
    parser.add_argument("--workers", type=int, default=2, help="workers of the plain loop (default: 2)")
    parser.add_argument("--models", default=",".join(MODELS), help=f"models of timm (default: {','.join(MODELS)})")
    arguments = parser.parse_args()
    print(f"{processor()}; {', '.join(installed(('torch', 'timm', 'torchvision', 'pillow')))}; "
          f"{arguments.images} JPEGs of 500 x 375, batch {arguments.batch}, {arguments.workers} workers, median of "
          f"{arguments.rounds} rounds\n")  # fmt: skip
    print("| model | plain loop, images/s | image_features, images/s | ratio | largest difference |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        dataset = _photographs(Path(folder), arguments.images)
        for name in arguments.models.split(","):
            print(_row(name, dataset, arguments), flush=True)
    return 0


def _row(name: str, dataset: ImageDataset, arguments: argparse.Namespace) -> str:
    timm = import_timm()
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    settings = import_timm("timm.data").resolve_model_data_config(network)
    transform = import_timm("timm.data").create_transform(**settings)
    spec, heads = timm_input(settings), (network.pretrained_cfg["classifier"],)
    ours = PretrainedModel(ZooEntry(name, "timm", name, where=name), LoadedNetwork(timm.create_model(name).eval(), spec,
                           heads, "", ""), spec, find_head(network, spec, heads, name))  # fmt: skip
    ours.body.load_state_dict({key: value for key, value in network.state_dict().items()
                               if not key.startswith(f"{heads[0]}.")})  # fmt: skip
    loader = DataLoader(_Files(dataset, transform), arguments.batch, num_workers=arguments.workers)

    def plain() -> np.ndarray:
        with torch.inference_mode():
            return np.concatenate([network.forward_head(network.forward_features(pixels), pre_logits=True).numpy()
                                   for pixels in loader])  # fmt: skip

    def menagerie() -> np.ndarray:
        return image_features(ours, dataset, None, batch_size=arguments.batch, device="cpu").features

    off = float(np.abs(plain() - menagerie()).max())  # and the warm-up
    times: dict[Callable[[], np.ndarray], list[float]] = {plain: [], menagerie: []}
    for _ in range(arguments.rounds):
        for contestant, taken in times.items():
            started = time.perf_counter()
            contestant()
            taken.append(time.perf_counter() - started)
    rates = [len(dataset) / statistics.median(taken) for taken in times.values()]
    return f"| {name} | {rates[0]:.1f} | {rates[1]:.1f} | {rates[1] / rates[0]:.2f} | {off:.1g} |"


class _Files(Dataset[torch.Tensor]):
    """The plain loop's dataset."""

    def __init__(self, dataset: ImageDataset, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self._paths, self._transform = [dataset.origin / key for key in dataset.keys], transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._transform(Image.open(self._paths[index]).convert("RGB"))


def _photographs(folder: Path, count: int) -> ImageDataset:
    """Write different crops of two photographs as JPEG files of two classes."""
    random = np.random.default_rng(0)
    for number in range(count):
        whole = Image.fromarray(load_sample_images().images[number % 2])
        left, top = int(random.integers(0, 140)), int(random.integers(0, 52))
        path = folder / "photos" / f"class_{number % 2}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.crop((left, top, left + 500, top + 375)).save(path, quality=90)
    return read_image_dataset(folder / "photos")


if __name__ == "__main__":
    sys.exit(main())
