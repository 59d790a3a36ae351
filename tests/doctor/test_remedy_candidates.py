"""Which change is tried first."""

import pytest
from known import environment, knowing

from doctor.environment.facts import Declared, Environment
from doctor.finding import Change, Finding
from doctor.remedy.candidates import candidates, size_of
from doctor.remedy.disturbance import breaks, disturbs, moves_along, read_steps


def pin(*requirements, **more):
    return Change("pin", f"Hold {', '.join(requirements)}.", requirements=requirements, **more)


def ordered(changes, here, known):
    finding = Finding("x", "import/wrong_version", "error", 0.9, "broken", changes=tuple(changes))
    return [one.requirements or one.text for one in candidates(finding, here, known)]


KNOWN = knowing(
    transformers={"4.38.2": (), "4.40.2": (), "4.42.4": (), "4.43.0": (), "4.43.4": (), "4.57.1": (), "5.1.0": ()},
    peft={"0.12.0": ("transformers",), "0.13.2": ("transformers",), "0.14.0": ("transformers",)},
    trl={"0.7.11": ("transformers>=4.31",), "0.8.0": ("transformers>=4.31",), "0.8.6": ("transformers>=4.31",),
         "0.12.0": ("transformers>=4.46",), "1.0.0|>=3.12": ("transformers>=4.31",)},
    torch={"2.5.0": (), "2.5.1": (), "2.6.0": ()},
    accelerate={"1.0.1": (), "1.3.0": (), "1.3.1": (), "1.10.0": ()},
)  # fmt: skip


def test_the_move_of_one_release_goes_before_the_move_of_a_major():
    here = environment("transformers==4.40.2", "peft==0.14.0 transformers")
    assert ordered([pin("transformers>=4.43"), pin("peft<0.14")], here, KNOWN)[:2] == [
        ("peft<0.14",), ("transformers>=4.43,<5",)
    ]  # fmt: skip


def test_one_pin_goes_before_a_pair_and_torch_stays_where_it_is():
    here = environment("transformers==4.40.2", "peft==0.14.0", "torch==2.5.1")
    changes = [pin("peft<0.14", "transformers<4.40"), pin("torch<2.5.1"), pin("transformers>=4.43,<5")]
    assert ordered(changes, here, KNOWN)[:3] == [
        ("transformers>=4.43,<5",), ("torch<2.5.1",), ("peft<0.14", "transformers<4.40")
    ]  # fmt: skip


def test_a_pair_of_which_one_is_met_already_is_one_move():
    here = environment("transformers==4.40.2", "peft==0.14.0")
    assert size_of(pin("peft<0.14", "transformers<4.41"), here, KNOWN).moved == 1


def test_a_bare_name_that_only_moves_what_it_needs_is_no_smaller_than_that():
    here = environment("trl==0.7.11 transformers<4.40", "transformers==4.40.2")
    assert ordered([pin("trl"), pin("transformers<4.40")], here, KNOWN) == [("transformers<4.40",), ("trl",)]


def test_ranges_that_mean_the_same_are_tried_once():
    here = environment("transformers==4.40.2", "peft==0.14.0")
    changes = [pin("peft<0.14,>=0.12"), pin("PEFT>=0.12,<0.14.0"), pin("peft<0.13")]
    assert ordered(changes, here, KNOWN) == [("peft<0.14,>=0.12",), ("peft<0.13",)]


def test_what_breaks_another_ones_needs_goes_behind():
    here = environment("transformers==4.40.2", "peft==0.14.0", "tuner==1.0 peft>=0.14", "other==1.0 peft")
    assert ordered([pin("peft<0.14"), pin("transformers>=4.43,<5")], here, KNOWN)[0] == ("transformers>=4.43,<5",)
    assert breaks(pin("peft<0.14"), here, KNOWN) == ("tuner 1.0 declares peft>=0.14, and gets 0.13.2.",)
    assert breaks(Change("uninstall", "Remove peft.", remove=("peft",)), here, KNOWN) == (
        "tuner 1.0 declares peft>=0.14, which is removed.", "other 1.0 declares peft, which is removed."
    )  # fmt: skip


def test_what_is_broken_already_is_not_laid_to_the_change():
    here = environment("peft==0.12.0", "tuner==1.0 peft>=0.14")
    assert breaks(pin("peft>=0.13,<0.14"), here, KNOWN) == ()


def test_a_range_that_would_move_others_becomes_the_nearest_version_that_does_not():
    here = environment("transformers==4.40.2", "trl==0.7.11 transformers>=4.31")
    assert ordered([pin("trl>=0.8.0")], here, KNOWN) == [("trl==0.8.6",), ("trl>=0.8.0",)]
    assert ordered([pin("trl>=0.12.0")], here, KNOWN) == [("trl==0.12.0",), ("trl>=0.12.0",)]  # none does not


def test_a_range_stays_within_the_major_of_its_nearest_version():
    here = environment("transformers==4.40.2", "peft==0.14.0")
    assert ordered([pin("transformers>=4.43")], here, KNOWN) == [
        ("transformers>=4.43,<5",), ("transformers==4.43.4",), ("transformers>=4.43",)
    ]  # fmt: skip


def test_a_range_that_moves_nothing_else_stays_and_the_nearest_version_is_tried_behind_all():
    here = environment("transformers==4.57.1", "trl==0.7.11 transformers>=4.31", "accelerate==1.0.1")
    changes = [pin("accelerate>=1.3.0"), pin("trl>=0.8.0"), pin("transformers<4.40")]
    assert ordered(changes, here, KNOWN) == [
        ("accelerate>=1.3.0",), ("trl>=0.8.0",), ("transformers<4.40",), ("accelerate==1.3.1",), ("trl==0.8.6",)
    ]  # fmt: skip


def test_releases_for_another_python_do_not_count():
    here = environment("transformers==4.40.2", "trl==0.7.11", python="3.12.1")
    assert ordered([pin("trl>=1.0")], here, KNOWN)[0] == ("trl>=1.0",)
    assert size_of(pin("trl>=1.0"), here, KNOWN).majors == 1
    assert size_of(pin("trl>=1.0"), environment("trl==0.7.11"), KNOWN).majors == 0  # there is none for that Python


def test_what_moves_nothing_keeps_its_place():
    rename = Change("rename", "Rename datasets.py.")
    variable = Change("environment", "Set X.", environment=(("X", "1"),))
    here = environment("transformers==4.40.2", "peft==0.14.0")
    changes = [rename, pin("transformers>=4.43"), variable, pin("peft<0.14")]
    made = ordered(changes, here, KNOWN)[:4]
    assert made == ["Rename datasets.py.", ("peft<0.14",), "Set X.", ("transformers>=4.43,<5",)]


def test_without_versions_the_order_is_the_findings():
    here = Environment("the text", declared=(Declared("peft", ""),))
    assert ordered([pin("transformers>=4.43"), pin("peft<0.14")], here, knowing()) == [
        ("transformers>=4.43",), ("peft<0.14",)
    ]  # fmt: skip


def test_what_moves_along_is_told():
    known = knowing(transformers={"4.38.2": ("tokenizers<0.19,>=0.14", "numpy>=1.17", 'x; sys_platform == "win32"')})
    here = environment("transformers==4.46.3", "tokenizers==0.20.3", "numpy==1.26.4")
    assert moves_along(pin("transformers<4.39"), here, known) == (
        "transformers 4.38.2 needs tokenizers<0.19,>=0.14: 0.20.3 is installed.",
    )
    assert disturbs(pin("transformers<4.39"), here, known) == moves_along(pin("transformers<4.39"), here, known)


@pytest.mark.parametrize(
    "line, told",
    [(" - a==2.0\n + a==1.0\n", "a moves down along from 2.0 to 1.0."), (" + b-c==1\n", "b-c 1 is installed along."),
     (" - d==1\n", "d 1 is removed along.")],
)  # fmt: skip
def test_what_uv_would_move(line, told):
    assert [str(step) for step in read_steps(f"Would install\n{line}")] == [told]
