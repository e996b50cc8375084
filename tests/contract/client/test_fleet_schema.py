"""The schema of fleet files, for editors: made of the records that the reader uses."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.unit.yolopool.client.fleet_file.test_parsing import FULL, MODEL, faults
from yolopool.client.fleet_file.parsing import parse_fleet
from yolopool.client.fleet_file.text.json_schema import schema

ROOT = Path(__file__).parents[3]
VALID = jsonschema.Draft202012Validator(schema())


def as_json(text: str) -> Any:
    """As an editor reads the file: YAML's types, and JSON's names."""
    return json.loads(json.dumps(yaml.safe_load(text)))


def test_the_published_schema_is_that_of_the_records() -> None:
    published = json.loads((ROOT / "docs" / "fleet.schema.json").read_text())
    assert published == schema()
    jsonschema.Draft202012Validator.check_schema(published)


@pytest.mark.parametrize(
    "text", [FULL, (ROOT / "examples" / "fleet.yaml").read_text()], ids=["full", "example"]
)
def test_what_is_read_meets_the_schema(text: str) -> None:
    parse_fleet(text.encode(), "f.yaml")
    VALID.validate(as_json(text))


@pytest.mark.parametrize(
    "text",
    [
        "fleet: 2",
        "fleet: 1\nmodel: []",
        "fleet: 1\nmodels: [{name: a}]",
        "fleet: 1\nmodels: {}",
        MODEL + "    load: {replicas: 0}",
        MODEL + "    load: {pin: 1}",
        MODEL + "    settings: {confidence: 1.5}",
        MODEL + "    settings: {shape_policy: sqare}",
        MODEL + "    batching: {gpu: {}}",
        MODEL + "    residency: {mod: normal}",
        "fleet: 1\naliases: [{name: 'a:b', targets: {1: 0}}]",
    ],
)
def test_what_the_reader_refuses_by_its_form_the_schema_refuses(text: str) -> None:
    assert faults(text)
    with pytest.raises(jsonschema.ValidationError):
        VALID.validate(as_json(text))
