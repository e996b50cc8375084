"""YAML as a tree with lines, within bounds."""

import pytest
import yaml

from yolopool.client.fleet_file.text import yaml_lines
from yolopool.client.fleet_file.text.yaml_lines import Items, NotYaml, Pairs, Text, parse

FLEET = """\
fleet: 1
models:
  - name: a   # of this line
    labels: {line: 7, site: "no"}
  - &b
    name: b
also: *b
"""


@pytest.fixture(params=["libyaml", "pure"], autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers: a machine may lack libyaml."""
    if request.param == "pure":
        monkeypatch.setattr(yaml_lines, "_Loader", yaml.SafeLoader)


def test_every_value_knows_its_line() -> None:
    root = parse(FLEET)
    assert isinstance(root, Pairs)
    places = {key.text: value for key, value in root.pairs if isinstance(key, Text)}
    assert places["fleet"] == Text(1, "1", plain=True)
    models = places["models"]
    assert isinstance(models, Items)
    first, second = models.items
    assert (first.line, second.line) == (3, 5)
    assert isinstance(first, Pairs)
    labels = first.pairs[1][1]
    assert isinstance(labels, Pairs)
    assert [value for _, value in labels.pairs] == [Text(4, "7", True), Text(4, "no", False)]
    assert places["also"] == second


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("a: [1,", 1, "no YAML"),
        ("a: 1\nb: *c\n", 2, r"\*c repeats no value"),
        ("a: &a [*a]\n", 1, r"\*a repeats no value that ended"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: !!python/object:os.system x\n", 1, "tag"),
        ("\na: !custom {b: c}\n", 2, "tag !custom"),
        ("[" * 40 + "]" * 40, 1, "more than 32 levels"),
        ("a: \0", 0, "no YAML"),
    ],
)
def test_what_is_refused(text: str, line: int, why: str) -> None:
    with pytest.raises(NotYaml, match=why) as caught:
        parse(text)
    assert caught.value.line in (line, line + 1)  # the two parsers differ about an end


def test_what_aliases_repeat_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_lines, "MAX_NODES", 1000)
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
    )
    with pytest.raises(NotYaml, match="more than 1000 values"):
        parse(bomb)
    assert parse("a: &a [1, 2]\nb: [*a, *a]\n") is not None


def test_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_lines, "MAX_BYTES", 10)
    with pytest.raises(NotYaml, match="MiB"):
        parse("a: 1234567890")


def test_nothing_is_nothing() -> None:
    assert parse("") is None
    assert parse("# nothing\n") is None
