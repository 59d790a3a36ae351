"""What the scripts share: the service, conversations as tokens, files that survive a kill.

python distillation.py key MODEL            does the service answer, and has it the model?
python distillation.py packages FILE        are the packages of a requirements.txt here?
python distillation.py report FOLDER        the report of the workflow
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
from collections import deque
from pathlib import Path

LOST = 75  # exit code by which the runner knows that the connection was lost, and begins again later
TOKENIZER = "results/tokenizer"


# --------------------------------------------------------------------------------------------------------- the service


@contextlib.contextmanager
def service(model):
    """Yield a ServiceClient: hosted where there is a key, at TINKER_BASE_URL where that is set, else of this machine.

    Leaves with 75 where the connection is lost: the runner waits until it is back, and begins the step again.
    """
    import tinker

    from local_service import local_service

    try:
        with contextlib.ExitStack() as stack:
            if not is_hosted():
                address = stack.enter_context(local_service(model))
                os.environ |= {"TINKER_BASE_URL": address, "TINKER_API_KEY": "tml-local"}  # so that all clients find it
            yield tinker.ServiceClient()
    except (tinker.APIConnectionError, tinker.APITimeoutError, ConnectionError) as error:
        sys.stderr.write(f"the connection was lost: {error}\n")
        sys.exit(LOST)


def is_hosted():
    """Return whether the service is one that somebody else runs."""
    return bool(os.environ.get("TINKER_BASE_URL") or os.environ.get("TINKER_API_KEY"))


def tokenizer():
    """Return the model's tokenizer, which the first step has kept."""
    from transformers import AutoTokenizer

    if not Path(TOKENIZER).is_dir():
        raise SystemExit(f"{TOKENIZER} is not there: the first step fetches it, `python distillation.py key MODEL`")
    return AutoTokenizer.from_pretrained(TOKENIZER)


def price():
    """Return what a million tokens of the model cost where it is hosted; None where nobody knows.

    Dollars as `prefill` (read), `sample` (written) and `train`, and the `date` of the table.
    """
    known = os.environ.get("WORKFLOW_PRICE")
    return json.loads(known) if known else None


# ---------------------------------------------------------------------------------------------- conversations as tokens


def user_message(row, reads):
    """Return what is asked: the columns of a row that `reads` names, such as "background question", a line each."""
    return "\n".join(text for name in reads.split() if (text := str(row.get(name) or "").strip()))


def prompt_tokens(tokenizer, asked, character=""):
    """Return the tokens that a model reads before it answers; the student has no character to read.

    Args:
        tokenizer: the tokenizer.
        asked: what is asked, of `user_message`.
        character: text of the character's prompt; "" for the student.
    """
    messages = [{"role": "system", "content": character}] if character else []
    return _rendered(tokenizer, [*messages, {"role": "user", "content": asked}], add_generation_prompt=True)


def end_of_turn(tokenizer):
    """Return the token that ends an answer."""
    asked, said = {"role": "user", "content": "a"}, "zebra"
    tokens = _rendered(tokenizer, [asked, {"role": "assistant", "content": said}])
    for place in range(1, len(tokens)):
        if said in tokenizer.decode(tokens[:place]):
            return tokens[place]
    return tokenizer.eos_token_id


def _rendered(tokenizer, messages, add_generation_prompt=False):
    # Models that think aloud are asked not to; templates of others pass this over.
    return tokenizer.apply_chat_template(messages, add_generation_prompt=add_generation_prompt, tokenize=True,
                                         return_dict=False, enable_thinking=False)  # fmt: skip


def datum(tokenizer, row):
    """Return a row as the service trains on it: of each token the next is asked for, those of the answer alone."""
    import tinker

    prompt = prompt_tokens(tokenizer, row["asked"])
    tokens = [*prompt, *row["tokens"]]
    weights = [0.0] * (len(prompt) - 1) + [1.0] * len(row["tokens"])
    return tinker.Datum(
        model_input=tinker.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": tokens[1:], "weights": weights},
    )


def text_of(tokenizer, tokens):
    """Return an answer's text."""
    return tokenizer.decode(tokens, skip_special_tokens=True).strip()


def sampled(sampler, requests, answer_tokens, temperature, end, together=32):
    """Yield the tokens of answers and why each ended, `stop` or `length`, in order; many are under way at a time.

    Args:
        sampler: a SamplingClient.
        requests: pairs of what is read, tokens, and a seed.
        answer_tokens: tokens of an answer at most.
        temperature: 0 takes the likeliest token, 1 draws from the model as it is.
        end: the token that ends an answer.
        together: answers that are under way at a time.
    """
    import tinker

    def ask(tokens, seed):
        settings = tinker.SamplingParams(max_tokens=answer_tokens, temperature=temperature, seed=seed, stop=[end])
        return sampler.sample(prompt=tinker.ModelInput.from_ints(tokens), num_samples=1, sampling_params=settings)

    waiting = deque()
    for number, (tokens, seed) in enumerate(requests):
        waiting.append(ask(tokens, seed))
        # The first is waited for: others find then that their long beginning was read already.
        if number == 0 or len(waiting) == together:
            yield _answer(waiting.popleft())
    while waiting:
        yield _answer(waiting.popleft())


def _answer(future):
    answer = future.result().sequences[0]
    return list(answer.tokens), answer.stop_reason


def seed_of(*parts):
    """Return a seed that is the same for the same parts, whatever else is sampled."""
    return int(digest_of(*parts)[:8], 16) % 2**31


def digest_of(*parts):
    """Return a digest of JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def digest_of_file(path):
    """Return a file's digest."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# ------------------------------------------------------------------------------------------ files, and what is told


def tell(**event):
    """Tell the runner how far we are; counts of tokens are sums of this run."""
    if path := os.environ.get("WORKFLOW_EVENTS"):
        with open(path, "a") as stream:
            stream.write(json.dumps(event) + "\n")


def read_rows(path):
    """Return the rows of a file of JSON lines; a last line that a kill has torn is left out."""
    if not Path(path).exists():
        return []
    *lines, _ = Path(path).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line.strip()]


def read_json(path):
    """Return what a JSON file says."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_rows(path, rows):
    """Write JSON lines; the file is there whole, or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_json(path, content):
    """Write a JSON file that is there whole, or not at all."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_text(path, text):
    """Write a file that is there whole, or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    with new.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(path)


def append_rows(path, rows):
    """Add rows, on disk before we go on."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        stream.flush()
        os.fsync(stream.fileno())


# ------------------------------------------------------------------------------ steps without a script of their own


def look_for_service(model):
    """Write results/connection.json and the model's tokenizer."""
    import tinker

    where = "hosted" if is_hosted() else "this machine"
    with service(model) as client:
        found = tinker.RestClient().get_server_capabilities().result()
        names = [one.model_name for one in found.supported_models]
        if model not in names:
            raise SystemExit(f"the service has no model {model}; it has {', '.join(names)}")
        training = client.create_lora_training_client(base_model=model, rank=1, seed=0).result()
        training.get_tokenizer().save_pretrained(TOKENIZER)
    write_json("results/connection.json", {"answers": True, "model": model, "service": where,
                                           "tinker": tinker.__version__})  # fmt: skip
    print(f"the service ({where}) answers and has {model}")


def look_for_packages(path):
    """Write results/packages.json: each requirement, the version that is here, and whether it fits."""
    from packaging.requirements import Requirement

    lines = [line.split("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    found = []
    for need in (Requirement(line) for line in lines if line):
        try:
            version = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        fits = version is not None and need.specifier.contains(version, prereleases=True)
        found.append({"requirement": str(need), "version": version, "fits": fits})
        print(f"{need}: {version or 'not installed'}{'' if fits else '  <- does not fit'}")
    write_json("results/packages.json", {"all_fit": all(one["fits"] for one in found), "packages": found})
    if lacking := [one["requirement"] for one in found if not one["fits"]]:
        raise SystemExit(f"missing or of another version: {', '.join(lacking)}. Install: "
                         f"{sys.executable} -m pip install -r {path}")  # fmt: skip


def write_report(folder):
    """Have the program that runs this workflow write its report."""
    program = shlex.split(os.environ.get("WORKFLOW_PROGRAM") or "menagerie workflow")
    code = subprocess.run([*program, "report", folder]).returncode
    if code not in (0, 1):  # 1: this step itself is not done yet
        raise SystemExit(code)


if __name__ == "__main__":
    word, argument = sys.argv[1:]
    {"key": look_for_service, "packages": look_for_packages, "report": write_report}[word](argument)
