"""Takes secrets out of texts that somebody may have put one into. Pure."""

import re

# An API key, also one that was cut off, and a join token, which goes on behind it.
_KEY = re.compile(r"(yp_[0-9a-f]{10})_[0-9a-f]+(?:\.[A-Za-z0-9_-]*)?")
# A token of OpenID Connect: its first part begins with {" in base 64.
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}")


def masked(text: str) -> str:
    """The text without the secrets of keys and tokens."""
    if "yp_" in text:
        text = _KEY.sub(r"\1_...", text)
    return _TOKEN.sub("eyJ...", text) if "eyJ" in text else text
