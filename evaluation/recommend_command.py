"""The command line `python recommend.py`: its words, and which of two answers they ask for."""

import argparse
import re
import sys
import traceback
from pathlib import Path

import constants
from config import ConfigError
from constants import command
from constants.argument_parser import BriefParser
from constants.commit import ShowVersion
from constants.end_signals import Terminated, hearing_signals
from data.data_error import DataError
from evaluation.recommendation.candidates import read_amount, same_licence
from storage.errors import OutputError
from storage.log_lines import use_log_lines
from storage.saved_run import RunNotFoundError

USAGE, DATA, FAILED, INTERRUPTED = 2, 3, 4, 130
SHIPPED_ZOO = "hub"
"""What `--zoo` calls the manifest that comes with the program."""

_EXAMPLES = """real models for your images (--zoo):
  python recommend.py photos/ --zoo hub                          the shipped list of well-known models
  python recommend.py photos/ --zoo my_zoo.yaml --out my.png --report my.html
  python recommend.py photos/ --zoo hub --max-params 30M --max-gflops 5 --licence apache-2.0 --memory 8GB
  python recommend.py table.csv --zoo hub --labels species --images file --json
  python recommend.py photos/ --zoo hub --fine-tune 3            rank, then fine-tune the first three

  photos/ is a folder with a sub-folder of images for each class, a CSV or parquet with a column of images and one of
  classes, or an .npz of `images` and `labels`. Ctrl-C shows the ranking so far; the same command goes on from there.

the laboratory (no --zoo, the name of a task, or --laboratory): networks of 8,000 parameters on 12x12 grey images
  python recommend.py digits-2           a task of the benchmark; what was measured on it stays hidden
  python recommend.py my.npz --hybrid

A manifest's modules are Python code, which `--zoo` imports and runs: from the manifest's folder, the current folder, or
what is installed. Name none that you don't trust.

exit codes: 0 done, 2 usage or no such run, 3 data or models, 4 a file can't be written, 130 interrupted"""


def main(words: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        words: command-line arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    use_log_lines()
    parser = _parser()
    arguments = parser.parse_args(words)
    if refusal := _refusal(arguments):
        parser.error(refusal)
    # Imported here: `--help` and errors of usage need no torch.
    from evaluation.ranking.laboratory import PictureError, recommend_in_laboratory
    from evaluation.recommendation.product import recommend_real_models

    try:
        with hearing_signals():  # SIGTERM too lets a training of a process of its own save and leave
            return recommend_real_models(arguments) if _is_product(arguments) else recommend_in_laboratory(arguments)
    except Terminated as ended:
        return _report(arguments, f"ended by {ended}", 128 + ended.number)
    except KeyboardInterrupt:
        return _report(arguments, "interrupted", INTERRUPTED)
    except (ConfigError, RunNotFoundError) as error:
        return _report(arguments, str(error), USAGE)
    except (PictureError, OutputError) as error:
        return _report(arguments, str(error), FAILED)
    except (DataError, OSError) as error:
        return _report(arguments, str(error), DATA)


def _parser() -> argparse.ArgumentParser:
    parser = BriefParser(
        prog=command("recommend"), description="Rank pretrained models for a dataset of your own.",
        epilog=_EXAMPLES.replace("python recommend.py", command("recommend")),
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("dataset", metavar="DATASET", help="images with classes, or the name of a benchmark task")
    parser.add_argument("--zoo", type=_manifest, metavar="ZOO.yaml",
                        help="rank the real models that this manifest lists; `hub`: the shipped list")  # fmt: skip
    parser.add_argument("--top", type=_count, default=10, metavar="K", help="models to show (default: 10)")
    parser.add_argument("--out", type=_picture, metavar="FILE.png", help="also draw a bar chart into this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--artifacts", type=Path, default=constants.ARTIFACTS_DIR, metavar="DIR",
                        help="where features are kept, and trained rankers are (default: artifacts/)")  # fmt: skip
    real = parser.add_argument_group("with --zoo")
    real.add_argument("--models", nargs="+", default=[], metavar="NAME", help="only these of the manifest")
    real.add_argument("--max-params", type=_amount, metavar="N", help="only models of so many parameters at most: 30M")
    real.add_argument("--max-gflops", type=_amount, metavar="N", help="only models of so many GFLOPs an image at most")
    real.add_argument("--licence", "--license", type=same_licence, nargs="+", default=[], metavar="NAME",
                      help="only models with one of these licences, such as apache-2.0")  # fmt: skip
    real.add_argument("--memory", type=_amount, metavar="N", help="only models that fine-tune in so much: 8GB")
    real.add_argument("--results", type=Path, metavar="TABLE.csv",
                      help="measured results to learn from: model,dataset,metric,value "
                      "(default: your own, ARTIFACTS/model_results.csv)")  # fmt: skip
    real.add_argument("--labels", metavar="COLUMN", help="column or array of the classes (default: found)")
    real.add_argument("--images", metavar="COLUMN", help="column or array of the images (default: found)")
    real.add_argument("--max-images", type=_count, default=5000, metavar="N",
                      help="images to look at, drawn from all classes (default: 5000)")  # fmt: skip
    real.add_argument("--device", metavar="DEVICE", help="cpu or cuda (default: cuda where there is one)")
    real.add_argument("--report", type=_page, metavar="PAGE.html", help="also write one page with pictures")
    real.add_argument("--fine-tune", type=_count, metavar="K", help="then fine-tune the first K models")
    real.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all that is drawn (default: 0)")
    laboratory = parser.add_argument_group("in the laboratory")
    laboratory.add_argument("--laboratory", action="store_true", help="--zoo lists small networks of your own")
    laboratory.add_argument("--hybrid", action="store_true", help="run every network on the images: a little better")
    laboratory.add_argument("--ranker", metavar="RUN",
                            help="a ranker's run folder or id (default: the newest that fits)")  # fmt: skip
    parser.add_argument("--version", action=ShowVersion)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _is_product(arguments: argparse.Namespace) -> bool:
    if arguments.zoo is None or arguments.laboratory or arguments.hybrid or arguments.ranker:
        return False
    is_task = re.fullmatch(r"[a-z]+-\d+", arguments.dataset) and not Path(arguments.dataset).exists()
    return not is_task


def _refusal(arguments: argparse.Namespace) -> str | None:
    """Say which option needs --zoo and has none."""
    if arguments.zoo is not None and not arguments.laboratory:
        return None
    defaults = {"max_images": 5000, "seed": 0, "models": [], "licence": []}
    names = ("models", "max_params", "max_gflops", "licence", "memory", "results", "labels", "images", "max_images",
             "device", "report", "fine_tune", "seed")  # fmt: skip
    given = [name for name in names if getattr(arguments, name) != defaults.get(name)]
    if not given:
        return None
    option = f"--{given[0].replace('_', '-')}"
    return f"{option} is about real models and needs --zoo: add --zoo hub, or a manifest of your own"


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def _amount(text: str) -> float:
    try:
        return read_amount(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _manifest(text: str) -> Path:
    return constants.ZOO_DIR / "hub.yaml" if text == SHIPPED_ZOO and not Path(text).exists() else Path(text)


def _picture(text: str) -> Path:
    if Path(text).suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{text!r} must end in .png")
    return Path(text)


def _page(text: str) -> Path:
    if Path(text).suffix.lower() not in (".html", ".htm"):
        raise argparse.ArgumentTypeError(f"{text!r} must end in .html")
    return Path(text)


def _report(arguments: argparse.Namespace, text: str, code: int) -> int:
    if arguments.debug:
        traceback.print_exc()
    sys.stderr.write(f"error: {text}\n")
    return code
