"""The tokenizer in a cache of the hub: what is written, what is refused, and that clients find it without a network."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("transformers")

from llm import base_model
from service.tokenizer_files import write_hub_tokenizer
from storage.errors import OutputError

LOOKS = """
import sys
from transformers import AutoTokenizer
found = AutoTokenizer.from_pretrained(sys.argv[1])
print(found.encode("ab", add_special_tokens=False), found.chat_template is not None)
"""


@pytest.fixture(scope="module")
def base():
    return base_model.load("tiny")


@pytest.mark.slow
def test_transformers_finds_it_by_its_name(base, tmp_path):
    place = write_hub_tokenizer(base, "org/small", tmp_path)
    again = write_hub_tokenizer(base, "org/small", tmp_path)  # the same
    assert place == again == tmp_path / "hub" / "models--org--small"
    (snapshot,) = (place / "snapshots").iterdir()
    assert (place / "refs" / "main").read_text() == snapshot.name and len(snapshot.name) == 40
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOOKS, "org/small"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "[97, 98] True\n", done.stderr


@pytest.mark.parametrize("name", ["a/b/c", "../up", "with space/x", "a--b/c", "/abs", ""])
def test_names_that_no_hub_has_are_refused(base, tmp_path, name):
    with pytest.raises(OutputError, match="is no name that a hub has"):
        write_hub_tokenizer(base, name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_models_of_the_hub_stay_as_they_are(base, tmp_path):
    (tmp_path / "hub" / "models--org--real" / "refs").mkdir(parents=True)
    with pytest.raises(OutputError, match="is of another model org/real"):
        write_hub_tokenizer(base, "org/real", tmp_path)
