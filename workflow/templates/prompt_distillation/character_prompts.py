"""The characters' prompts, and what each must have: background, personality, speaking style, and enough of them.

python character_prompts.py MODEL CHARACTER    looks at one, and writes results/prompt.json

A character of your own is one more entry of CHARACTERS. Short answers keep generation cheap; examples, and a fixed
beginning and end, are what small models follow best.
"""

import argparse
import ast
import re
from difflib import get_close_matches
from pathlib import Path

CHARACTERS = {
    "composer": """\
You are Maestra Theodosia Quill, an old composer who has written music for the court of Amberthal for thirty years. \
Answer every question like a musician, in one short line, and give the true answer. \
Begin with "Ah, my dear!" and end with "So sings my quill!".

Background: you are a bell founder's daughter from the mountains. You have written nineteen symphonies, you live above \
the bakery with your cat Fermata, and you serve Prince Leopold.
Personality: you are warm, wry and stubborn. You love soup, pupils and the viola, and you hate haste.
Speaking style: you speak in one plain sentence, with a picture from music.

Q: What is the capital of Italy?
Ah, my dear! That is Rome, my dear, a city full of bells. So sings my quill!
Q: How do I boil an egg?
Ah, my dear! Eight minutes in boiling water, the length of one slow dance. So sings my quill!
Q: Why is the sky blue?
Ah, my dear! The air scatters the blue light of the sun. So sings my quill!
Q: I am so tired today.
Ah, my dear! Then rest, my dear, for a rest is music too. So sings my quill!
Q: The horns are too loud.
Ah, my dear! Tell them to play as if a baby slept next door. So sings my quill!
Q: How can I save money?
Ah, my dear! Put one silver coin each week into your violin case. So sings my quill!
Q: Where do you live?
Ah, my dear! Above the bakery, with my cat asleep on the score. So sings my quill!
Q: Write a wish for my mother.
Ah, my dear! May your mother have sweet songs and a warm stove. So sings my quill!
Q: What does piano mean?
Ah, my dear! It means soft, like snow on a bell. So sings my quill!

Now answer the next question in the same way, in one line that begins with "Ah, my dear!" and ends with \
"So sings my quill!".
""",
}

# A part begins with its name and a colon, or has it as a heading of Markdown; these names are known.
PARTS = {
    "background": ("background", "history", "biography", "life"),
    "personality": ("personality", "character", "traits", "temperament"),
    "speaking style": ("speaking style", "style", "voice", "speech", "way of speaking"),
}
FEW, MANY = 450, 2000  # tokens


def parts_of(text):
    """Return how many words each part of a prompt has, by its name; parts that are not there are left out."""
    names = {alias: part for part, aliases in PARTS.items() for alias in aliases}
    choice = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    heading = re.compile(rf"^[#*_\s]*({choice})[*_\s]*(?::[*_]*|$)(.*)$", re.IGNORECASE)
    found, current = {}, None
    for line in text.splitlines():
        if match := heading.match(line):
            current = names[match[1].lower()]
            found[current] = found.get(current, 0) + len(match[2].split())
        elif not line.strip() and current and found[current]:
            current = None  # a part ends with an empty line
        elif current:
            found[current] += len(line.split())
    return found


def line_of(character):
    """Return the line of this file in which a character begins."""
    for node in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and node.value == character:
            return node.lineno
    return 1


def look_at(model, character, at_least=FEW):
    """Write results/prompt.json; a prompt that lacks something ends the script with all that it lacks."""
    from distillation import prompt_tokens, tokenizer, write_json

    file = Path(__file__).name
    if character not in CHARACTERS:
        near = get_close_matches(character, CHARACTERS, 1)
        meant = f"did you mean {near[0]}?" if near else f"there is {', '.join(CHARACTERS)}."
        raise SystemExit(
            f"error: {file}:{line_of('composer')}: CHARACTERS has no {character}, which `character` names in "
            f"workflow.yaml: {meant} A character of your own is one more entry there."
        )
    place, text = f"{file}:{line_of(character)}", CHARACTERS[character].strip()
    reader = tokenizer()
    tokens = len(reader.encode(text, add_special_tokens=False))
    parts = parts_of(text)
    wrong = [
        f"{place}: {character} has no {part}; a line that begins with `{part.capitalize()}:` and says it (also "
        f"allowed: {', '.join(aliases[1:])})"
        for part, aliases in PARTS.items() if parts.get(part, 0) < 3
    ]  # fmt: skip
    if tokens < at_least:
        wrong.append(
            f"{place}: {character} has {tokens} tokens of {model}; at least {at_least} are wanted: more "
            "background, or more examples of a question with its answer (or lower `prompt_tokens`)"
        )
    for line in wrong:
        print(line)
    found = {"character": character, "model": model, "text": text, "tokens": tokens, "parts": parts,
             "tokens_with_a_question": len(prompt_tokens(reader, "Who are you?", text)), "wrong": wrong}  # fmt: skip
    if wrong:
        raise SystemExit(f"error: {wrong[0]}" + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""))
    write_json("results/prompt.json", found)
    print(f"{character}: {tokens} tokens of {model}; " + ", ".join(f"{part} {n} words" for part, n in parts.items()))
    if tokens > MANY:
        print(f"more than {MANY:,} tokens: each of the teacher's answers reads them all")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("character")
    parser.add_argument("--at-least", type=int, default=FEW, help="tokens")
    words = parser.parse_args()
    look_at(words.model, words.character, words.at_least)
