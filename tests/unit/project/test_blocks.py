"""Each fenced block of the pages says what it is, and why where no test runs it."""

import json
import re
import tomllib

import pytest
import yaml

from tests import page_blocks
from tests.page_blocks import Block, blocks_of

BLOCKS = [block for page in page_blocks.blocks_of_pages().values() for block in page]
# What a block of output can't begin a line with: a command there would escape the runner.
COMMANDS = ("$ ", "yolopool ", "curl ", "python ", "pip ", "make ", "docker ", "kubectl ")


def test_what_is_a_block() -> None:
    marked = "<!-- not run: needs docker -->\n```sh\ny\n```\n"
    text = f"a\n\n```sh\nx\n```\n\n{marked}- b\n\n  ```python\n  z\n  ```\n"
    assert list(blocks_of("p", text)) == [
        Block("p", 3, "sh", "x\n"),
        Block("p", 8, "sh", "y\n", "not run: needs docker"),
        Block("p", 13, "python", "z\n"),
    ]
    first, second, third = blocks_of("p", text)
    assert [block.is_run(full=True) for block in (first, second, third)] == [True, False, True]
    assert (second.kind, second.said) == ("not run", "needs docker")


def test_long_blocks_are_run_in_full() -> None:
    (block,) = blocks_of("p", "<!-- run in full -->\n```sh\nx\n```\n")
    assert (block.is_run(full=False), block.is_run(full=True)) == (False, True)


def test_pages_have_commands_and_python() -> None:
    run = [block.language for block in BLOCKS if block.is_run(full=False)]
    assert min(run.count("sh"), run.count("python")) >= 1


def test_the_map_lists_what_no_test_runs() -> None:
    page = (page_blocks.ROOT / "docs" / "README.md").read_text()
    _, _, table = page.partition("## What no test runs")
    rows = re.findall(r"^\| \[[^\]]+\]\(([^)]+)\) \| ([^|]+) \|$", table, re.MULTILINE)
    docs = page_blocks.ROOT / "docs"
    told = {str((docs / to).resolve().relative_to(page_blocks.ROOT)): why for to, why in rows}
    assert told == {page: ", ".join(reasons) for page, reasons in page_blocks.not_run().items()}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_tried_or_says_why_not(block: Block) -> None:
    assert block.language in page_blocks.LANGUAGES, "say what it is: ```sh, python, text ..."
    if block.kind == "not run":
        assert block.said in page_blocks.NOT_RUN
    elif block.kind == "run by":
        path, _, name = block.said.partition("::")
        assert f"def {name}" in (page_blocks.ROOT / path).read_text()
    else:
        assert block.marker in ("", "run in full")
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "yaml":
        list(yaml.safe_load_all(block.text))
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == page_blocks.PRINTED:
        assert not [line for line in block.text.splitlines() if line.startswith(COMMANDS)]
