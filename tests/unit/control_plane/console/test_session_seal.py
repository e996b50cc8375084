"""What is in a session's cookie, and who can open it."""

from control_plane.console.session_seal import LASTS_S, MAX_KEY_CHARS, SessionSeal

NOW = 1_000_000.0
KEY = "yp_0123456789.secret"


def test_a_session_stands_for_its_key_until_its_time_is_over() -> None:
    seal = SessionSeal("of the pool")
    text = seal.sealed(KEY, NOW)
    assert KEY not in text
    assert seal.opened(text, NOW) == seal.opened(text, NOW + LASTS_S - 1) == KEY
    assert seal.opened(text, NOW + LASTS_S) == ""
    # Another control plane of the pool takes it, a stranger does not.
    assert SessionSeal("of the pool").opened(text, NOW) == KEY
    assert SessionSeal("of another").opened(text, NOW) == ""
    assert SessionSeal().opened(SessionSeal().sealed(KEY, NOW), NOW) == ""


def test_what_was_changed_or_made_up_opens_nothing() -> None:
    seal = SessionSeal("of the pool")
    text = seal.sealed(KEY, NOW)
    for place in range(0, len(text), 7):
        other = "A" if text[place] != "A" else "B"
        assert seal.opened(text[:place] + other + text[place + 1 :], NOW) == ""
    for junk in ("", "A", "AAAA", "é", "=" * 40, text[:-4], text + "AAAA", "A" * 5000):
        assert seal.opened(junk, NOW) == "", junk


def test_the_longest_key_fits_a_cookie() -> None:
    # Name, attributes and value together have 4096 bytes.
    assert len(SessionSeal("s").sealed("k" * MAX_KEY_CHARS, NOW)) < 3900
