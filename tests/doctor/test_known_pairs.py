"""Pairs of versions of which one is known to break the other are told of a file, before anything is installed."""

import pytest
from doctor_program import here
from told_knowledge import ToldMetadata

from doctor.case import Case
from doctor.diagnosis.engine import diagnose, find_by_rules
from doctor.environment.facts import Declared, Environment
from doctor.knowledge.rules import read_rules


class Known:
    metadata, symbols, rules = ToldMetadata({}), None, read_rules()


def found(**versions):
    declared = tuple(Declared(name.replace("_", "-"), one) for name, one in versions.items())
    return diagnose(Case(Environment("r.txt", declared=declared)), Known(), (find_by_rules,)).findings


@pytest.mark.parametrize(
    "versions, culprit, requirement",
    [
        ({"peft": "==0.14.0", "transformers": "==4.40.2"}, "peft", "peft<0.14"),
        ({"trl": "==0.7.11", "transformers": "==4.46.3"}, "trl", "trl>=0.8.0"),
        ({"openai": "==1.54.5", "httpx": "==0.28.1"}, "httpx", "httpx<0.28"),
        ({"datasets": "==2.14.4", "pyarrow": "==21.0.0"}, "datasets", "pyarrow<21"),
    ],
)
def test_a_pair_is_told_with_what_mends_it(versions, culprit, requirement):
    first = found(**versions)[0]
    assert culprit in first.culprits
    assert requirement in [one for change in first.changes for one in change.requirements]


@pytest.mark.parametrize(
    "versions",
    [
        {"peft": "==0.14.0", "transformers": "==4.46.3"},
        {"peft": "==0.14.0"},  # alone nobody knows
        {"peft": "", "transformers": "==4.40.2"},
        {"openai": "==1.60.0", "httpx": "==0.28.1"},
        {"httpx": "==0.28.1"},
    ],
)
def test_what_goes_together_or_is_not_known_is_not_told(versions):
    assert found(**versions) == ()


def test_by_the_door_it_is_an_error_where_the_import_breaks(tmp_path, capfd):
    (tmp_path / "requirements.txt").write_text("peft==0.14.0\ntransformers==4.40.2\n")
    answer = here(capfd, tmp_path / "requirements.txt", "--json")
    assert answer.code == 1 and answer.json["findings"][0]["branch"] == "import/wrong_version"
    assert answer.json["findings"][0]["changes"][0]["commands"]["file"][0].startswith("peft<0.14  into ")
