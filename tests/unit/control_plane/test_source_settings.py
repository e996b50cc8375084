from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from control_plane.settings import read_settings
from control_plane.sources.source_uri import SCHEMES, parse
from yolopool.errors import SourceRefused


def test_by_default_no_folder_no_private_network_and_no_profile_is_read() -> None:
    rules = read_settings([]).source_rules()
    assert rules.schemes == SCHEMES
    assert (rules.roots, rules.private_networks, rules.profiles) == ((), (), frozenset())
    for text in ("file:///etc/passwd", "http://127.0.0.1/a.pt"):
        with pytest.raises(SourceRefused):
            rules.check(parse(text))


def test_flags_are_repeated_or_separated_by_commas(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    settings = read_settings(
        [
            "--source-schemes=s3,file", "--source-hosts=Models-*", "--source-hosts=a,b",
            f"--source-roots={link}", "--source-private-networks=10.0.0.0/8,fd00::/8",
            f"--watch=team/parts={link.as_uri()}",
        ]
    )  # fmt: skip
    rules = settings.source_rules()
    assert rules.schemes == {"s3", "file"}
    assert rules.hosts == ("models-*", "a", "b")
    assert rules.roots == (str(link), str(tmp_path))
    assert len(rules.private_networks) == 2
    (watch,) = settings.watches(1.0)
    assert (watch.name, watch.model, watch.by) == ("team.parts", "team/parts", "settings")
    assert watch.uri == f"{link.as_uri()}/"


@pytest.mark.parametrize(
    "flag",
    [
        "--source-schemes=gopher", "--source-private-networks=here", "--source-roots=models",
        "--watch=parts", "--watch=Parts=s3://bucket/m/", "--watch=parts=file:///models/",
        "--watch=parts=s3://me:hunter2@bucket/m/", "--fetch-parallel=0",
    ],
)  # fmt: skip
def test_what_can_not_be_is_refused_at_the_start(flag: str) -> None:
    with pytest.raises(ValidationError):
        read_settings([flag])


def test_nothing_is_read_where_no_scheme_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOPOOL_CONTROL_PLANE_SOURCE_SCHEMES", "")
    rules: Any = read_settings([]).source_rules()
    with pytest.raises(SourceRefused):
        rules.check(parse("https://example.com/a.pt"))
