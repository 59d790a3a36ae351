"""Held-out questions, answered by the teacher, the model without its prompt, and the student of each checkpoint.

--teacher asks the first two; --students asks the students, and measures all by chrF with answers of the teacher's that
nobody has learned from: as near to them as further answers of the teacher are is as near as one can be.
"""

import argparse
import random
from statistics import fmean

from sacrebleu.metrics import CHRF

from distillation import (
    append_rows,
    digest_of,
    end_of_turn,
    prompt_tokens,
    read_json,
    read_rows,
    sampled,
    seed_of,
    service,
    tell,
    text_of,
    tokenizer,
    write_json,
    write_rows,
)

REFERENCES, STUDENTS = "results/references.jsonl", "results/students.jsonl"
DRAWS = 2000  # of questions, for intervals of 95 %

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
parser.add_argument("--teacher", action="store_true")
parser.add_argument("--students", action="store_true")
parser.add_argument("--references", type=int, default=4, help="of the teacher, to measure others by")
parser.add_argument("--samples", type=int, default=2, help="answers to each question that are measured")
parser.add_argument("--temperature", type=float, required=True)
parser.add_argument("--answer-tokens", type=int, required=True)
words = parser.parse_args()
tokenizer = tokenizer()
end = end_of_turn(tokenizer)


def answers_of(sampler, jobs, path, known, make):
    """Ask what is lacking, and add a row for each question as soon as all its answers are there.

    Args:
        sampler: returns a SamplingClient.
        jobs: (key, requests) of each question.
        path: file of the rows.
        known: rows that are there, by key; those that are made are added.
        make: makes a row of a key and the answers' texts.
    """
    lacking = [(key, requests) for key, requests in jobs if key not in known]
    if not lacking:
        return
    flat = [request for _, requests in lacking for request in requests]
    answers = sampled(sampler(), flat, words.answer_tokens, words.temperature, end)
    for key, requests in lacking:
        said = []
        for tokens_read, _ in requests:
            tokens, _ = next(answers)
            said.append(text_of(tokenizer, tokens))
            counts["tokens_in"] += len(tokens_read)
            counts["tokens_out"] += len(tokens)
        known[key] = make(key, said)
        append_rows(path, [known[key]])
        counts["done"] += len(requests)
        tell(unit="answers", **counts)


def ask_teacher():
    """Write results/references.jsonl."""
    prompt = read_json("results/prompt.json")["text"]
    questions = list({row["id"]: row for row in read_rows("data/held_out.jsonl")}.values())
    keys = {digest_of(words.model, prompt, row["asked"], words.references, words.samples, words.temperature,
                      words.answer_tokens)[:16]: row for row in questions}  # fmt: skip
    known = {row["key"]: row for row in read_rows(REFERENCES) if row["key"] in keys}
    write_rows(REFERENCES, known.values())
    taught, samples = words.references + words.samples, words.samples
    counts["total"] = len(keys) * (taught + samples)
    counts["done"] = len(known) * (taught + samples)

    def requests(key, row):
        with_prompt, without = prompt_tokens(tokenizer, row["asked"], prompt), prompt_tokens(tokenizer, row["asked"])
        seeds = [seed_of("harness", key, number) for number in range(taught + samples)]
        return [*((with_prompt, seed) for seed in seeds[:taught]), *((without, seed) for seed in seeds[taught:])]

    def made(key, said):
        row = keys[key]
        return {
            **{name: row[name] for name in ("id", "setting", "question", "asked")},
            "references": said[: words.references], "teacher": said[words.references : taught], "base": said[taught:],
            "key": key,
        }  # fmt: skip

    if len(known) < len(keys):
        with service(words.model) as client:
            jobs = [(key, requests(key, row)) for key, row in keys.items()]
            answers_of(
                lambda: client.create_sampling_client(base_model=words.model).result(), jobs, REFERENCES, known, made
            )
    write_rows(REFERENCES, [known[key] for key in keys])
    print(f"{len(keys)} questions: {words.references} answers of the teacher to measure by, {samples} to be measured")


def ask_students():
    """Write results/students.jsonl and results/evaluation.json."""
    checkpoints = read_rows("checkpoints/checkpoints.jsonl")
    references = read_rows(REFERENCES)
    best = min(checkpoints, key=lambda one: one["validation_loss"])["step"]
    settings = (words.samples, words.temperature, words.answer_tokens)
    keys = {(one["step"], row["id"]): digest_of(one["settings"], one["step"], row["asked"], *settings)[:16]
            for one in checkpoints for row in references}  # fmt: skip
    wanted = set(keys.values())
    known = {row["key"]: row for row in read_rows(STUDENTS) if row["key"] in wanted}
    write_rows(STUDENTS, known.values())
    counts["total"], counts["done"] = len(keys) * words.samples, len(known) * words.samples
    if len(known) < len(keys):
        with service(words.model) as client:
            for one in checkpoints:
                rows = {keys[one["step"], row["id"]]: row for row in references}
                jobs = [(key, [(prompt_tokens(tokenizer, row["asked"]), seed_of("student", row["id"], number))
                               for number in range(words.samples)]) for key, row in rows.items()]  # fmt: skip

                def made(key, said, rows=rows, step=one["step"]):
                    row = rows[key]
                    return {"step": step, **{name: row[name] for name in ("id", "setting", "question", "asked")},
                            "answers": said, "best": step == best, "key": key}  # fmt: skip

                def sampler(path=one["sampler"]):
                    return client.create_sampling_client(model_path=path).result()

                answers_of(sampler, jobs, STUDENTS, known, made)
    students = [{**known[key], "best": step == best} for (step, _), key in keys.items()]
    write_rows(STUDENTS, students)
    write_json("results/evaluation.json", evaluated(checkpoints, references, students, best))


def evaluated(checkpoints, references, students, best):
    """Return how near each is to the teacher."""
    chrf = CHRF()

    def scores(answers):
        """Return the mean chrF, and the share of answers that the teacher gave to the letter, of each question."""
        pairs = [(said, row["references"]) for row, said in zip(references, answers, strict=True)]
        near = [fmean(chrf.sentence_score(one, others).score for one in said) for said, others in pairs]
        return near, [fmean(one in others for one in said) for said, others in pairs]

    def summed(answers):
        near, agreed = scores(answers)
        return near, {"chrf": fmean(near), "interval": interval([near]), "agreement": fmean(agreed)}

    teacher, of_teacher = summed([row["teacher"] for row in references])
    _, of_base = summed([row["base"] for row in references])
    of_students, near = [], {}
    for one in checkpoints:
        answers = [row["answers"] for row in students if row["step"] == one["step"]]
        near[one["step"]], found = summed(answers)
        of_students.append({"step": one["step"], "validation_loss": one["validation_loss"], **found})
    highest = max(of_students, key=lambda one: one["chrf"])["step"]
    found = {
        "questions": len(references), "answers_each": words.samples, "references_each": words.references,
        "temperature": words.temperature, "measured_by": chrf.get_signature().format(),
        "near": fmean(near[best]) / fmean(teacher) if fmean(teacher) else 0.0,
        "near_interval": interval([near[best], teacher]),
        "best_step": best, "chosen_by": "lowest validation loss", "highest_chrf_step": highest,
        "teacher": of_teacher, "base": of_base, "students": of_students,
    }  # fmt: skip
    print(f"chrF with the teacher's answers, {len(references)} questions: the teacher itself {of_teacher['chrf']:.1f}, "
          f"without its prompt {of_base['chrf']:.1f}")  # fmt: skip
    for one in of_students:
        low, high = one["interval"]
        told = f"{one['chrf']:.1f} ({low:.1f} to {high:.1f}), {one['agreement']:.0%} to the letter"
        which = "  <- best" if one["step"] == best else ""
        print(f"student of checkpoint {one['step']}: {told}, validation loss {one['validation_loss']:.4f}{which}")
    low, high = found["near_interval"]
    print(f"the best is {found['near']:.3f} ({low:.3f} to {high:.3f}) of the teacher")
    return found


def interval(series):
    """Return the 95 % interval over questions of a mean, or of the ratio of two means."""
    draws, count = random.Random(0), len(series[0])
    found = []
    for _ in range(DRAWS):
        places = draws.choices(range(count), k=count)
        sums = [sum(values[place] for place in places) for values in series]
        found.append(sums[0] / count if len(sums) == 1 else sums[0] / sums[1] if sums[1] else 0.0)
    found.sort()
    return [found[int(0.025 * DRAWS)], found[int(0.975 * DRAWS)]]


counts = {"done": 0, "total": 0, "tokens_in": 0, "tokens_out": 0}
if words.teacher:
    ask_teacher()
if words.students:
    ask_students()
