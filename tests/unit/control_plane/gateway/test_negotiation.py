import pytest

from control_plane.gateway.rest.negotiation import choose

OFFERED = ("application/json", "text/csv", "image/jpeg")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("nonsense", "application/json"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV", "text/csv"),
        ("text/csv; charset=utf-8", "text/csv"),
        ("image/*", "image/jpeg"),
        ("image/jpg", "image/jpeg"),
        ("image/jpeg;q=0.5, text/csv;q=0.6", "text/csv"),
        ("text/csv;q=0.5, */*;q=0.5", "application/json"),
        ("*/*, application/json;q=0", "text/csv"),
        ("application/json;q=0, text/*;q=0.1", "text/csv"),
        # What a browser sends: nothing of ours by name.
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("text/csv;q=many", "text/csv"),
        ("text/csv;q=0.000", None),
        ("text/html", None),
        ("*/csv", "application/json"),
        ("image/png, application/xml", None),
    ],
)
def test_the_type_that_is_wanted_most(accept: str, chosen: str | None) -> None:
    assert choose(accept, OFFERED) == chosen
