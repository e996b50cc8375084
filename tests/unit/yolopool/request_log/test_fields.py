"""The fields of the request log: the page and the schema say what the code writes."""

import json
from pathlib import Path

from yolopool.request_log.fields import BY_NAME, FIELDS, STAGES, schema

DOCS = Path(__file__).parents[4] / "docs"


def test_the_page_has_every_field() -> None:
    rows = [
        f"| `{one.name}`{' *' if one.always else ''} | {one.kind} | {one.unit} | {one.meaning} |"
        for one in FIELDS
    ]
    table = (DOCS / "request-log.md").read_text().partition("|---|---|---|---|\n")[2]
    assert table.splitlines() == rows


def test_the_published_schema_is_that_of_the_fields() -> None:
    assert json.loads((DOCS / "request-log.schema.json").read_text()) == schema()


def test_names_are_there_once_and_carry_their_unit() -> None:
    assert len(BY_NAME) == len(FIELDS)
    endings = {"ms": "_ms", "bytes": "_bytes", "°C": "_c", "W": "_w"}
    for one in FIELDS:
        if one.unit in endings:
            assert one.name.endswith(endings[one.unit]), one.name
    assert set(STAGES) <= set(BY_NAME)
