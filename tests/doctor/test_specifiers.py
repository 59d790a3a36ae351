"""Versions in people's words."""

import pytest
from packaging.specifiers import SpecifierSet

from doctor.failure.specifiers import NOT_THERE, specifier_of

WORDS = {
    "4.40.2": "==4.40.2",
    "v0.5.3 (pinned)": "==0.5.3",
    "2.6.0+cu124": "==2.6.0+cu124",
    "2.7.0.dev20250310+cu124": "==2.7.0.dev20250310+cu124",
    "2.8.2+cu12torch2.6cxx11abiFALSE": "==2.8.2+cu12torch2.6cxx11abiFALSE",
    "0.0.29.post3": "==0.0.29.post3",
    "2.4.0a0 (vendor container nv24.05)": "==2.4.0a0",
    "4.33.3 shown by pip list": "==4.33.3",
    "0.5.9 instead of 0.5.17": "==0.5.9",
    "0.11.0 chosen by uv for '>=0.11.0'": "==0.11.0",
    "unpinned, newest of Dec 2024 (0.14.0)": "==0.14.0",
    "0.8.3, newest is 0.33.0": "==0.8.3",
    "2.5.9 built for torch 2.3": "==2.5.9",
    "2.1.0 with CUDA 12.1": "==2.1.0",
    "upgraded from 4.36.1 to 4.40.2": "==4.40.2",
    "0.15.0 -> 0.16.0": "==0.16.0",
    "2.11": "==2.11.*",
    "5": "==5.*",
    "0.3.x": "==0.3.*",
    "2025.2.x": "==2025.2.*",
    "0.11-era file (line 401)": "==0.11.*",
    "older than 4.43 (pinned by the project)": "<4.43",
    "anything below 0.20": "<0.20",
    "pre-1.0": "<1.0",
    "less than 2": "<2",
    "0.7.11 or older": "<=0.7.11",
    "0.9.2 and earlier": "<=0.9.2",
    "up to 0.9.6": "<=0.9.6",
    "0.2.43 just installed, an older copy in the user site is imported": "<=0.2.43",
    "newer than 2.1": ">2.1",
    "2.0 or higher": ">=2.0",
    "4.45 and up": ">=4.45",
    "2.5+": ">=2.5",
    "0.4.x or newer": ">=0.4",
    "since 0.7.2": ">=0.7.2",
    "2.4 dev builds and later": ">=2.4.dev0",
    ">=4.39 (dev at the time)": ">=4.39",
    "<= 0.33.0 forced by the range check": "<=0.33.0",
    ">=0.25,<0.26": ">=0.25,<0.26",
    "<3.0.0 (capped numpy<2)": "<3.0.0",
    "old (<0.9)": "<0.9",
    "2.1 to 2.5 pip wheels": ">=2.1,<2.6",
    "4.44-5.x of early 2025": ">=4.44,<6",
    "between 4.40 and 4.44": ">=4.40,<4.45",
    "2.0.2 loaded in the kernel, 1.26.x installed afterwards": ">=1.26,<=2.0.2",
    "2.3.1+cu121; 2.2.0 cu118": ">=2.2.0,<=2.3.1",
    "2.x preinstalled, 1.x pulled in": ">=1,<3",
    "4.46 dev/4.46.0": "==4.46.*",
    "not the 2.11 it was built for": "!=2.11.*",
    "not installed": NOT_THERE,
    # Nothing can be told.
    "old": "",
    "latest": "",
    "newest on PyPI in April 2025": "",
    "2024-09": "",
    "Sept 2023": "",
    "git main, Aug 2024": "",
    "CUDA 12.6 build": "",
    "cu101": "",
    "NCCL 2.21.5": "",
    "24.07 container": "",
    "either side of 4.39": "",
    "0.25.0 after the fix": "",
    "<=4.36.2 or >=4.40": "",
    "older than the one that saved the adapter": "",
    "": "",
}


@pytest.mark.parametrize("text", WORDS)
def test_words_become_specifiers(text):
    assert specifier_of(text) == WORDS[text]
    SpecifierSet(WORDS[text])


def test_in_a_table_two_parts_are_a_whole_version():
    assert specifier_of("24.0", exact=True) == "==24.0"
    assert specifier_of("24.0") == "==24.0.*"
