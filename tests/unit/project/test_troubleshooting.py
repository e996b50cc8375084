"""docs/troubleshooting.md has each reason once, in the section of its code, and no other."""

import re

from importer import refusal
from tests.page_blocks import ROOT
from yolopool.codes import CODES
from yolopool.error_table import BY_REASON

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
ROW = re.compile(r"^\| `([A-Z_]+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
IMPORTS = {value for name, value in vars(refusal).items() if name.isupper()}


def test_every_error_is_there_once() -> None:
    told = [
        row[0]
        for title, text in SECTIONS.items()
        if title != "Imports"
        for row in ROW.findall(text)
    ]
    assert sorted(told) == sorted(BY_REASON)


def test_every_reason_of_an_import_is_there() -> None:
    told = {reason for reason, _, _ in ROW.findall(SECTIONS["Imports"])}
    assert told | (IMPORTS & set(BY_REASON)) == IMPORTS
    assert not told & set(BY_REASON)


def test_a_section_is_of_one_code_and_says_what_an_error_says() -> None:
    for text in SECTIONS.values():
        said = re.search(r"gRPC ([A-Z_]+), exit code (\d)\.(.*?)\n\n", text, re.DOTALL)
        if said is None:
            continue
        code, exit_code, more = said.groups()
        assert CODES[code].exit_code == int(exit_code)
        usual = "Retryable" in more
        for reason, means, _ in ROW.findall(text):
            assert BY_REASON[reason].code == code, reason
            excepted = "Not retryable" in means if usual else "Retryable" in means
            assert BY_REASON[reason].retryable == (usual != excepted), reason


def test_nothing_of_the_rest_is_retryable() -> None:
    assert not any(
        BY_REASON[reason].retryable for reason, _, _ in ROW.findall(SECTIONS["The rest"])
    )
