"""What the files of an environment show to be wrong, whether something failed or not."""

from collections.abc import Iterator

from doctor.case import Case
from doctor.diagnosis.copies import find_conda_mixture, find_other_copies, find_overlaps, find_two_dist_infos
from doctor.diagnosis.declared_needs import find_unmet_needs, find_wrong_python, find_wrong_wheels
from doctor.diagnosis.hidden_modules import find_hidden_modules
from doctor.diagnosis.leftovers import (
    find_empty_folders,
    find_files_of_another_release,
    find_missing_files,
    find_renamed_folders,
)
from doctor.diagnosis.machine_state import find_machine_state
from doctor.diagnosis.mechanism import Known, Said
from doctor.diagnosis.old_by_platform import find_old_by_platform
from doctor.diagnosis.torch_state import find_torch_state

PARTS = (
    find_hidden_modules,
    find_other_copies,
    find_two_dist_infos,
    find_overlaps,
    find_conda_mixture,
    find_renamed_folders,
    find_missing_files,
    find_files_of_another_release,
    find_empty_folders,
    find_unmet_needs,
    find_wrong_python,
    find_wrong_wheels,
    find_torch_state,
    find_machine_state,
    find_old_by_platform,
)


def find_installed_state(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find what is wrong with an environment that was read from files; nothing for one that a text tells of.

    Args:
        case: what is diagnosed; its environment must be complete.
        knowledge: released metadata.

    Yields:
        Findings; where something failed that they have little to do with, with little confidence.
    """
    if case.environment.complete:
        for part in PARTS:
            yield from part(case, knowledge)
