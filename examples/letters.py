"""The smallest agent there is to learn from random weights: of four characters, as many small letters as possible.

python train.py Agent agent=examples/letters.py:letters base_model=tiny trained=all advantage=batch learning_rate=3e-3
"""


def tasks(split):
    """Return people to greet; the last of them are held out."""
    people = [f"{first}{last}" for first in ("Ada", "Bo", "Cy", "Di") for last in ("bert", "line", "mund", "rik")]
    return [{"name": name} for name in (people[12:] if split == "val" else people[:12])]


def letters(task, client):
    """Ask once; the reward is the share of small letters among four characters."""
    question = [{"role": "user", "content": f"Greet {task['name']} in small letters"}]
    answer = client.chat.completions.create(model="policy", messages=question, max_tokens=4)
    return sum("a" <= letter <= "z" for letter in answer.choices[0].message.content or "") / 4
