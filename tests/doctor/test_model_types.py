"""Model types that the installed transformers does not know."""

from doctor.diagnosis.model_types import find_unknown_model_types
from tests.doctor.told_knowledge import failing, knowing, pins, release

TOLD = "ValueError: The checkpoint has model type `whale` but Transformers does not recognize this architecture."
KNOWN = knowing(
    {
        "transformers": [release("4.30"), release("4.50"), release("4.60")],
        "server": [release("1", "2024-01-01", "transformers<4.50")],
    },
    names={("transformers", "transformers", "X"): "4.30-"},
    model_types={"whale": "4.50-"},
)  # fmt: skip


def only(text: str, **told):
    (one,) = find_unknown_model_types(failing(text, **told), KNOWN)
    return one


def test_the_release_that_knows_it_is_named():
    one = only(TOLD, transformers="4.30")
    assert one.branch == "runtime/data_format" and one.confidence == 0.9 and pins(one) == ["transformers>=4.50"]


def test_who_holds_transformers_back_is_told():
    assert "server asks for transformers<4.50" in only(TOLD, transformers="4.30", server="1").evidence


def test_a_key_error_counts_where_models_are_looked_up():
    assert only("File a/configuration_auto.py in x\nKeyError: 'whale'", transformers="4.30").confidence == 0.9
    assert only("KeyError: 'whale'", transformers="4.30").confidence == 0.6  # a word that may be anybody's key
    for told in ({}, {"importer": "pandas", "transformers": "4.30"}):
        assert list(find_unknown_model_types(failing("KeyError: 'whale'", **told), KNOWN)) == []


def test_a_type_of_nobody_needs_code_of_its_own():
    assert only(TOLD.replace("whale", "fish")).changes[0].kind == "code"


def test_a_release_that_knows_it_is_not_at_fault():
    assert (
        only(TOLD, transformers="4.60") == "transformers 4.60 knows the model type whale: its version is not at fault"
    )
