"""What the student saves: tokens and money of each question, and when its making has paid for itself."""

import argparse
from statistics import fmean

from distillation import price, prompt_tokens, read_json, read_rows, tokenizer, write_json

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
words = parser.parse_args()
tokenizer = tokenizer()
prompt = read_json("results/prompt.json")["text"]
asked = [row["asked"] for row in {row["id"]: row for row in read_rows("data/held_out.jsonl")}.values()]
teacher = fmean(len(prompt_tokens(tokenizer, one, prompt)) for one in asked)
student = fmean(len(prompt_tokens(tokenizer, one)) for one in asked)
answers = read_rows("data/teacher.jsonl")
answer = fmean(len(row["tokens"]) for row in answers)
made_of = {
    "tokens_in": sum(len(prompt_tokens(tokenizer, row["asked"], prompt)) for row in answers),
    "tokens_out": sum(len(row["tokens"]) for row in answers),
    "tokens_trained": sum(row["tokens"] for row in read_rows("training_logs/metrics.jsonl")),
}
found = {
    "questions": len(asked), "teacher_prompt_tokens": teacher, "student_prompt_tokens": student,
    "prompt_tokens_saved": 1 - student / teacher, "answer_tokens": answer, "making": made_of,
}  # fmt: skip
print(f"of {len(asked)} held-out questions: {teacher:.0f} tokens are read with the prompt, {student:.0f} without, "
      f"{found['prompt_tokens_saved']:.1%} less; an answer has {answer:.0f}")  # fmt: skip
if cost := price():
    each = [(tokens * cost["prefill"] + answer * cost["sample"]) / 1e6 for tokens in (teacher, student)]
    making = sum(made_of[f"tokens_{what}"] * cost[kind] for what, kind in
                 (("in", "prefill"), ("out", "sample"), ("trained", "train"))) / 1e6  # fmt: skip
    pays_after = making / (each[0] - each[1]) if each[0] > each[1] else None
    found |= {
        "dollars_a_question_teacher": each[0], "dollars_a_question_student": each[1], "dollars_of_making": making,
        "paid_for_after_questions": pays_after, "prices_of": cost["date"],
    }  # fmt: skip
    print(f"a thousand questions: ${1000 * each[0]:.2f} with the prompt, ${1000 * each[1]:.2f} without it")
    print(f"${making:.2f} was spent" + (f", saved again after {pays_after:,.0f} questions" if pays_after else ""))
else:
    print("no price is known for this model; on a machine of one's own it is time that is saved")
write_json("results/savings.json", found)
