"""What a trained model answers at the end of its run, beside what it answered before: samples.json."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from beautilog import logger

from data.text_preview import as_said
from data.token_row import TokenRow
from llm.sampling_settings import SampleRequest, SamplingSettings
from storage.files import write_json
from storage.text_samples import SAMPLES, TextSample
from train.language.output_advice import weights_are_safe
from train.language.trained_model import TrainedModel


def answer_rows(language: TrainedModel, rows: Sequence[TokenRow]) -> list[TextSample]:
    """Answer the prompts of some rows, by the model as it is now and, where it is frozen, as it was.

    Args:
        language: the model under training.
        rows: rows whose first trained token ends the prompt.
    """
    if not rows:
        return []
    config, decode = language.config, language.base.tokenizer.decode
    settings = SamplingSettings(
        temperature=config.sample_temperature, seed=config.seed, max_tokens=config.sample_tokens
    )
    cuts = [int(row.weights.nonzero()[0]) for row in rows]
    names = [language.sampled] if language.sampled is None else [language.sampled, None]
    asked = [
        SampleRequest(row.ids[:cut].tolist(), settings, adapter=name)
        for name in names
        for row, cut in zip(rows, cuts, strict=True)
    ]
    language.module.eval()
    found = [sample for (sample,) in language.sampler().sample(asked)]
    before = [sample.text for sample in found[len(rows) :]] or [""] * len(rows)
    return [
        TextSample(
            place=row.place,
            prompt=decode(row.ids[:cut].tolist()),
            before=old,
            answer=new.text,
            expected=decode(row.targets()[0], skip_special_tokens=True),
            finish=str(new.finish),
            tokens=len(new.tokens),
        )
        for row, cut, new, old in zip(rows, cuts, found, before, strict=False)
    ]


def write_samples(language: TrainedModel, path_of: Callable[[str], Path], samples: Sequence[TextSample]) -> None:
    """Tell samples in the log and write them into a run's folder; nothing where there are none.

    Args:
        language: the model that answered.
        path_of: gives the place of a name in the run's folder.
        samples: what was answered.

    Raises:
        OutputError: the file can't be written.
    """
    if not samples:
        return
    tokenizer = language.base.tokenizer
    added = tokenizer.added_tokens_decoder.values()
    special = {*tokenizer.all_special_tokens, *(token.content for token in added if token.special)}
    for sample in samples:
        for line in sample_lines(sample, special):
            logger.info(line)
    exported = [f"{name}/" for name in ("adapter", "merged", "model") if path_of(name).is_dir()]
    with weights_are_safe(path_of, exported):
        write_json(path_of(SAMPLES), [dataclasses.asdict(sample) for sample in samples])


def sample_lines(sample: TextSample, special: Collection[str]) -> list[str]:
    """Write a sample as a person reads it: who said what, the answer before training and the answer now.

    Args:
        sample: what was asked and answered.
        special: texts of the tokenizer's special tokens.
    """
    asked = shorten("  ".join(as_said(sample.prompt, special)), end=True)
    lines = [f"{sample.place}, {asked}" if sample.place else asked]
    for when, text in (("before training", sample.before), ("now", sample.answer)):
        if text or when == "now":
            said = "  ".join(as_said(text, special)) or ("white space alone" if text else "nothing")
            lines.append(f"    {when}: {shorten(said)}")
    return lines


def shorten(text: str, most: int = 160, end: bool = False) -> str:
    """Return text for a line of the log.

    Args:
        text: the text.
        most: characters that are shown.
        end: whether its end is shown, not its beginning, where it is longer.
    """
    if len(text) <= most:
        return text
    return f"...{text[-most:]}" if end else f"{text[:most]}..."
