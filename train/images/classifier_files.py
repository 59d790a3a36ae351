"""The files of an exported classifier, by which one is known."""

from pathlib import Path

CLASSIFIER = "image_classifier.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
CLASSIFIER_FILES = (WEIGHTS, CLASSIFIER, CARD)


def is_classifier_run(run: Path) -> bool:
    """Say whether a run is one of ImageClassifierTrainer.

    Args:
        run: folder of the run.
    """
    return run.resolve().parent.parent.name == "ImageClassifier"
