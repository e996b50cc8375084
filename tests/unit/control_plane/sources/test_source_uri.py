import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.sources.source_uri import is_uri, parse, shown
from yolopool.client.sources import fetched
from yolopool.errors import SourceInvalid

PASSWORD = "hunter2"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("https://Example.com/m/best.pt", ("https", "example.com", 443, "/m/best.pt", "best.pt")),
        ("http://h:8000/a?download=1", ("http", "h", 8000, "/a?download=1", "a")),
        ("http://[::1]/a.pt", ("http", "::1", 80, "/a.pt", "a.pt")),
        ("s3://bucket/a/b.onnx", ("s3", "bucket", 0, "a/b.onnx", "b.onnx")),
        ("s3://bucket/my%20best%23.pt", ("s3", "bucket", 0, "my best#.pt", "my best#.pt")),
        ("file:///nas/my%20model.pt", ("file", "", 0, "/nas/my model.pt", "my model.pt")),
        ("/nas/best.pt", ("file", "", 0, "/nas/best.pt", "best.pt")),
        ("models:/parts/Production", ("models", "", 0, "parts/Production", "Production")),
        ("models:/parts@champion", ("models", "", 0, "parts@champion", "parts@champion")),
        ("runs:/abc/weights/best.pt", ("runs", "", 0, "abc/weights/best.pt", "best.pt")),
        ("wandb-artifact://me/p/m:v3", ("wandb-artifact", "", 0, "me/p/m:v3", "m:v3")),
    ],
)
def test_a_uri_is_taken_apart(text: str, parts: tuple[str, str, int, str, str]) -> None:
    uri = parse(text)
    assert (uri.scheme, uri.host, uri.port, uri.path, uri.name) == parts


@pytest.mark.parametrize(
    "text",
    [
        f"https://me:{PASSWORD}@example.com/best.pt",
        f"https://{PASSWORD}@example.com/best.pt",
        f"s3://key:{PASSWORD}@bucket/best.pt",
        f"https://h/best.pt?X-Amz-Credential=a&X-Amz-Signature={PASSWORD}",
        f"https://h/best.pt?sv=2022&sig={PASSWORD}",
        f"https://h/best.pt?access_token={PASSWORD}",
        f"https://h/best.pt?API-Key={PASSWORD}",
        f"https://h/best.pt#{PASSWORD}",
        f"ftp://me:{PASSWORD}@h/best.pt",
        f"https://h:{PASSWORD}/best.pt",
        f"https://[{PASSWORD}/best.pt",
    ],
)
def test_a_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(SourceInvalid) as refused:
        parse(text)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "", "best.pt", "https:///best.pt", "https://h/a b", "https://h/\x00", "https://h\\@g/a",
        "s3://", "s3://-/a", "s3://bucket/a?versionId=3", "s3://bucket/a%0ab", "file://other/a.pt", "file://",
        "file:a.pt",
        "file:///a/../b.pt", "file:///a/%2e%2e/b.pt", "/a/../b.pt", "file:///a%00b.pt",
        "models:/", "models://server/parts/3", "runs:/", "runs:/a//b", "runs:/a/../b",
        "wandb-artifact://me/p", "gs://bucket/a",
        "https://exämple.com/a", f"https://h/{'a' * 2000}",
    ],
)  # fmt: skip
def test_what_is_no_uri_of_a_file_is_refused(text: str) -> None:
    with pytest.raises(SourceInvalid):
        parse(text)


@given(st.text(max_size=60), st.sampled_from(["", "https://", "s3://", "file://", "models:/"]))
def test_any_text_is_read_or_refused(text: str, scheme: str) -> None:
    try:
        uri = parse(scheme + text)
    except SourceInvalid:
        pass
    else:
        assert uri.scheme
        assert uri.path is not None
    shown(scheme + text)


def test_nothing_secret_is_shown() -> None:
    assert shown(f"https://me:{PASSWORD}@h/a?b={PASSWORD}") == "https://h/a?..."
    assert shown("file:///nas/best.pt") == "file:///nas/best.pt"
    assert shown("models:/parts/3") == "models:/parts/3"
    assert PASSWORD not in shown(f"https://[{PASSWORD}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("s3://b/a.pt", True), ("models:/a/1", True), ("C:/a.pt", False), ("runs/detect/train", False),
     ("best.pt", False), ("/nas/best.pt", False), ("http:best.pt", False)],
)  # fmt: skip
def test_client_and_server_tell_files_from_uris_alike(text: str, expected: bool) -> None:
    assert is_uri(text) == fetched.is_uri(text) == expected
