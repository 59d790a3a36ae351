"""Checks that programs do of versions: what they ask for, another copy than the one installed, and absent metadata."""

import pytest

from doctor.diagnosis.version_checks import find_told_packages, find_told_requirements
from tests.doctor.told_knowledge import failing, knowing, pins, release

ASKS = (
    "ImportError: glue>=0.11,!=0.11.3,<0.14 is required for a normal functioning of this module, "
    "but found glue==0.15.2."
)
KNOWN = knowing(
    {
        "glue": [release(one) for one in ("0.12", "0.13.3", "0.15.2", "0.16")],
        "transformers": [
            release("4.30", "2023-01-01", "glue<0.14,>=0.11"),
            release("4.31", "2023-02-01", "glue<0.16,>=0.14"),
            release("4.32", "2023-03-01", "glue>=0.16"),
        ],
        "server": [release("1.0", "2023-01-01", "glue>=0.15")],
    }
)


def only(text: str, **told):
    (one,) = find_told_requirements(failing(text, **told), KNOWN)
    return one


def test_what_is_asked_for_is_installed_or_who_asks_moves_to_what_accepts_it():
    one = only(ASKS, transformers="4.30")
    assert one.branch == "import/wrong_version" and one.verdict.startswith("glue 0.15.2 is here, and transformers 4.30")
    assert pins(one) == ["glue>=0.11,!=0.11.3,<0.14", "transformers>=4.31,<=4.31"]


def test_what_another_distribution_needs_is_not_broken_first():
    one = only(ASKS, transformers="4.30", server="1.0")
    assert pins(one)[0] == "transformers>=4.31,<=4.31" and "server asks for glue>=0.15" in one.evidence


def test_where_the_right_one_is_told_to_be_installed_another_copy_is_found():
    one = only(ASKS, glue="0.13.3")
    assert one.id == "other-copy-found" and one.branch == "import/stale_or_partial"
    assert one.not_this.startswith("pip install glue")


@pytest.mark.parametrize("sign", ["PYTHONPATH=/old", "/home/a/.local/lib/python3.11/site-packages/glue"])
def test_a_folder_before_the_environment_hides_it(sign):
    one = only(f"{ASKS}\n{sign}", glue="0.13.3")
    assert one.branch == "import/shadowed" and one.changes[0].kind == "environment"


@pytest.mark.parametrize(
    "text",
    ["pkg_resources.VersionConflict: (glue 0.15.2 (/v), Requirement.parse('glue<0.14'))",
     "ContextualVersionConflict: (glue 0.15.2 (/v/site-packages), Requirement.parse('glue<0.14'), {'transformers'})"],
)  # fmt: skip
def test_a_conflict_of_pkg_resources(text):
    assert only(text).verdict.startswith("glue 0.15.2 is here")


def test_pips_afterthought_is_a_warning():
    one = only("ERROR: transformers 4.30 requires glue<0.14, but you have glue 0.15.2 which is incompatible.")
    assert one.branch == "resolve/conflict" and one.level == "warning" and one.confidence < 0.6


@pytest.mark.parametrize(
    "text, name",
    [("pkg_resources.DistributionNotFound: The 'glue>=1' distribution was not found and is required by x", "glue"),
     ("PackageNotFoundError: No package metadata was found for glue", "glue")],
)  # fmt: skip
def test_metadata_that_is_not_there(text, name):
    one = only(text)
    assert one.branch == "import/not_installed" and one.culprits == (name,)


@pytest.mark.parametrize(
    "text, told, branch, first",
    [
        ("Using `device_map` requires Glue: `pip install 'glue>=0.13'`", {}, "not_installed", "install"),
        ("Using `X` requires `glue>=0.13`: run `pip install x[torch]`", {"glue": "0.12"}, "wrong_version", "pin"),
        ("Using `X` requires `glue>=0.13`", {"glue": "0.16", "place": "colab"}, "stale_or_partial", "restart"),
        ("Reader requires the Glue library but it was not found.", {}, "not_installed", "install"),
    ],
)
def test_a_package_that_a_program_asks_for(text, told, branch, first):
    (one,) = find_told_packages(failing(f"ImportError: {text}", **told), KNOWN)
    assert (one.branch, one.changes[0].kind, one.culprits) == (f"import/{branch}", first, ("glue",))


def test_advice_that_the_model_can_not_use_is_called_wrong():
    known = knowing({"transformers": [release("4.37"), release("4.39")]}, model_types={"whale2": "4.39-"})
    text = (
        "ImportError: transformers>=4.36,<=4.37 is required for a normal functioning of this module, but found "
        "transformers==4.39.\nTo fix: run `pip install x` or set DISABLE_VERSION_CHECK=1\nmodel whale2 7b"
    )
    one, *_ = find_told_requirements(failing(text), known)
    assert one.changes[0].requirements == ("llamafactory", "transformers>=4.39")
    assert one.not_this.startswith("Install transformers>=4.36,<=4.37, as the message says")
