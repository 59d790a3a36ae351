"""`python recommend.py photos/ --zoo hub.yaml`: from images and a zoo to a ranking, as far as it has come."""

import argparse
import json
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from constants.counting import counted
from data.data_error import DataError
from data.images.image_checks import DIGESTS_FOLDER
from data.images.image_dataset import ImageDataset, read_image_dataset
from data.pretrained.errors import ModelUnavailableError
from data.pretrained.zoo_manifest import ZooEntry, read_zoo_manifest
from evaluation.recommendation.answer import Answer, content_of, failure_lines, fine_tuned_lines, text_of
from evaluation.recommendation.assessment import Assessment, OverLimitError, assess
from evaluation.recommendation.assessment_cache import AssessmentCache
from evaluation.recommendation.candidates import Limits, Refused, choose_candidates
from evaluation.recommendation.fine_tuned_accuracy import Knowledge, expect, gather
from evaluation.recommendation.fine_tuning import Budget, DatasetWords, FineTuning, Winner, fine_tune_winners
from evaluation.recommendation.picture import draw_ranking
from evaluation.recommendation.progress import Progress, ReadingProgress
from evaluation.recommendation.ranking import Ranking, probe_draws, rank_models
from evaluation.recommendation.report_page import write_page
from evaluation.recommendation.results_table import OWN_TABLE, read_results
from evaluation.recommendation.splits import Splits, cross_validation, given_parts
from storage.errors import OutputError

OK, INTERRUPTED = 0, 130
_MOST_TOLD = 160  # characters of why a model was left out, as it is; the answer says all of it


def recommend_real_models(arguments: argparse.Namespace) -> int:
    """Rank a zoo's models for a user's images and print the answer.

    Args:
        arguments: what the command line was given.

    Returns:
        The exit code: 130 where Ctrl-C ended it, after the ranking so far.

    Raises:
        DataError: the images, the zoo or a table can't be used, or no model could be assessed.
        OutputError: a picture or a page can't be written.
        ConfigError: models are to be fine-tuned, and the settings of that are wrong.
    """
    if arguments.fine_tune:
        Budget.of_settings()  # what is wrong with them is told before all models have been run
    zoo = read_zoo_manifest(arguments.zoo)
    limits = Limits(arguments.max_params, arguments.max_gflops, tuple(arguments.licence), arguments.memory)
    candidates, refused = choose_candidates(zoo, arguments.models, limits)
    device = _device(arguments.device)
    words = DatasetWords(
        Path(arguments.dataset), arguments.labels, arguments.images, arguments.max_images, arguments.seed
    )
    with ReadingProgress() as progress:
        whole = read_image_dataset(
            words.path, labels=words.labels, images=words.images, max_images=words.max_images, seed=words.seed,
            cache=arguments.artifacts / DIGESTS_FOLDER, progress=progress.show,
        )  # fmt: skip
    dataset, splits, notes = _split(whole, words.seed)
    own_table = arguments.artifacts / OWN_TABLE.name
    knowledge, more = _knowledge(arguments.results, own_table, candidates, whole)
    survey = Survey(dataset, splits, limits, arguments.artifacts / "features", device, refused, candidates, knowledge)
    try:
        survey.run(_in_order(candidates, knowledge))
    except KeyboardInterrupt:
        survey.interrupted = True
    if not survey.assessed and not survey.interrupted:
        raise DataError(_none_left(survey))
    answer = Answer(
        dataset, words, arguments.zoo, len(zoo), survey.ranking(words.seed), survey.refused, survey.failed,
        survey.remaining, notes + more + survey.notes, arguments.top,
    )  # fmt: skip
    failure = _write_files(answer, arguments)
    if not arguments.json:  # before the fine-tuning, which takes long
        _print(text_of(answer))
    interrupted = survey.interrupted
    if arguments.fine_tune and answer.ranking is not None and not interrupted:
        try:
            answer.fine_tuning = _fine_tune(answer, whole, arguments, own_table)
        except KeyboardInterrupt:
            interrupted = True
            _say("interrupted: the same command goes on with the fine-tuning")
        if answer.fine_tuning is not None and not arguments.json:
            _print("\n".join(["", *fine_tuned_lines(answer.fine_tuning)]))
    if arguments.json:
        _print(json.dumps(content_of(answer), indent=1, allow_nan=False))
    if failure is not None:
        raise failure
    return INTERRUPTED if interrupted else OK


def _write_files(answer: Answer, arguments: argparse.Namespace) -> OutputError | None:
    """Write the picture and the page; returns what failed, which must not take the ranking away."""
    if answer.ranking is None:
        return None
    try:
        if arguments.out:
            draw_ranking(answer.ranking, answer.dataset.name, arguments.out, arguments.top)
            answer.files["picture"] = str(arguments.out)
        if arguments.report:
            write_page(answer, arguments.report)
            answer.files["report"] = str(arguments.report)
    except OutputError as error:
        return error
    return None


@dataclass
class Survey:
    """Models that are assessed one after another; what is there so far can be ranked at any time.

    Attributes:
        dataset: the images.
        splits: which images the probes are trained and scored on.
        limits: what a model may cost.
        cache: folder in which features are kept.
        device: device to run on.
        refused: models over a limit.
        candidates: the models, in the order that `knowledge` has them in.
        knowledge: measured results about them; None where there are none.
        assessed: models that are done.
        failed: name and reason of each model that could not be loaded or run.
        remaining: names of the models that were not come to.
        notes: what was done aloud.
        interrupted: whether a person has stopped it.
    """

    dataset: ImageDataset
    splits: Splits
    limits: Limits
    cache: Path
    device: str | None
    refused: list[Refused]
    candidates: list[ZooEntry]
    knowledge: Knowledge | None
    assessed: list[Assessment] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False

    def run(self, entries: list[ZooEntry]) -> None:
        """Assess models in a given order.

        Raises:
            KeyboardInterrupt: a person has stopped it; what is done stays.
            DataError: an image can't be read any more.
        """
        place_of_models = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._judgements = AssessmentCache(self.cache, self.dataset, self.splits, place_of_models)
        progress = Progress([work_of(entry) for entry in entries], len(self.dataset))
        self.remaining = [entry.name for entry in entries]
        try:
            for place, entry in enumerate(entries):
                told = progress.begin(place, entry.name)
                before = len(self.assessed)
                text = self._try(entry, told)
                progress.end(text, len(self.assessed) > before)
                self.remaining.pop(0)
        finally:
            progress.clear()

    def _try(self, entry: ZooEntry, told: Callable[[int], None]) -> str:
        try:
            found = assess(
                entry, self.dataset, self.splits, self.limits, judgements=self._judgements, cache=self.cache,
                device=self.device, progress=told,
            )  # fmt: skip
        except OverLimitError as error:
            self.refused.append(error.refused)
            return f"left out by {error.refused.option}: {error.refused.reason}"
        except ModelUnavailableError as error:
            reason = str(error).removeprefix(f"{entry.where}: ")
            self.failed.append((entry.name, reason))
            return f"left out: {textwrap.shorten(reason, _MOST_TOLD, placeholder=' ...')}"
        self.assessed.append(found)
        self.notes += found.notes
        took = "" if found.costs.milliseconds is None else f", {found.costs.milliseconds:.3g} ms an image"
        return f"probe {found.probe.accuracy:.3f}{took}"

    def ranking(self, seed: int) -> Ranking | None:
        """Rank what is done; None where nothing is."""
        if not self.assessed:
            return None
        draws = probe_draws(self.assessed, self.dataset, self.splits, seed)
        expectation = None
        if self.knowledge is not None:
            place = {entry.name: number for number, entry in enumerate(self.candidates)}
            models = [place[each.entry.name] for each in self.assessed]
            expectation = expect(self.knowledge, models, draws, len(self.candidates), seed)
        return rank_models(self.assessed, self.dataset, self.splits, draws, expectation)


def work_of(entry: ZooEntry) -> float:
    """Guess how long a model takes for an image, in any unit."""
    return entry.gflops or (entry.parameters or 20e6) / 6e6  # the ratio of usual networks


def _in_order(entries: list[ZooEntry], knowledge: Knowledge | None) -> list[ZooEntry]:
    """Put models that did well elsewhere first, then the cheap ones: an answer that is broken off is worth most so."""
    quality = np.zeros(len(entries)) if knowledge is None else knowledge.quality(len(entries))
    places = sorted(range(len(entries)), key=lambda m: (-max(round(float(quality[m]), 6), 0.0), work_of(entries[m])))
    return [entries[place] for place in places]


def _knowledge(
    given: Path | None, own: Path, entries: list[ZooEntry], dataset: ImageDataset
) -> tuple[Knowledge | None, list[str]]:
    """Read what was measured of the zoo's models: from the table that was named, else from the user's own."""
    path = given or own
    if given is None and not own.exists():
        return None, []
    zoo = [(entry.reference, entry.name) for entry in entries]
    knowledge = gather(read_results(path), path, zoo, dataset.digest)
    if knowledge is None:
        return None, [f"{path} has no accuracy of any of these models"] if given else []
    return knowledge, [knowledge.ignored] if knowledge.ignored else []


def _split(dataset: ImageDataset, seed: int) -> tuple[ImageDataset, Splits, list[str]]:
    """Set apart what a person has set apart: a test part is not looked at, a validation part is what is scored on."""
    notes = []
    parts = dataset.parts
    if parts is not None and (parts == "test").any() and (parts != "test").any():
        notes.append(
            f"the {counted(int((parts == 'test').sum()), 'image')} of the test part were not looked at: they are to "
            "measure what fine-tuning reaches"
        )
        dataset = dataset.subset(np.flatnonzero(parts != "test"))
        parts = dataset.parts
    if parts is not None and (parts == "val").any() and (parts == "train").any():
        splits = given_parts(dataset.labels, dataset.groups, parts == "val", seed)
        copied = int((parts == "val").sum()) - int(splits.scored.sum())
        if copied:
            notes.append(f"{counted(copied, 'validation image')} also among the training images: not scored")
        if splits.scored.any():
            return dataset, splits, notes
        notes.append("no validation image is left: cross-validation on all images instead")
    return dataset, cross_validation(dataset.labels, dataset.groups, seed), notes


def _device(given: str | None) -> str | None:
    if given is None:
        return None
    try:
        device = torch.device(given)
    except RuntimeError:
        raise DataError(f"--device {given}: there is no such device; needed: cpu, cuda, or cuda:0.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DataError(f"--device {given}: this machine has no CUDA device that torch can use; use --device cpu.")
    return given


def _none_left(survey: Survey) -> str:
    reasons = failure_lines(survey.failed)
    if not survey.failed:
        reasons = [f"{each.name}: left out by {each.option}: {each.reason}" for each in survey.refused[:10]]
    mend = "Mend the first of these, then run the same command again."
    advice = mend if survey.failed else f"Relax {survey.refused[0].option}."
    return "\n".join(["no model could be assessed:", *(f"  {line}" for line in reasons), advice])


def _fine_tune(answer: Answer, whole: ImageDataset, arguments: argparse.Namespace, table: Path) -> FineTuning:
    assert answer.ranking is not None
    chosen = answer.ranking.models[: arguments.fine_tune]
    winners = [Winner(each.assessment.entry, answer.zoo, each.assessment.probe.accuracy) for each in chosen]
    return fine_tune_winners(
        winners, answer.words, artifacts=arguments.artifacts, table=table, device=arguments.device, say=_say,
        images=whole,
    )  # fmt: skip


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
