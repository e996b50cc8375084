"""The console's pages and files, as they are sent: read once, and put together from their parts."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable

from yolopool import __version__

KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Page:
    """`name` is its path under /console/, and that of its script; the first one is the start."""

    name: str
    title: str
    is_in_menu: bool = True


PAGES = (
    Page("fleet", "Fleet"),
    Page("models", "Models"),
    Page("model", "Model", is_in_menu=False),
    Page("try", "Try"),
    Page("events", "Events"),
    Page("doctor", "Doctor"),
    Page("alerts", "Alerts"),
)


@dataclass(frozen=True, slots=True)
class Asset:
    content: bytes
    media_type: str
    etag: str


def pages() -> Mapping[str, Asset]:
    """The pages by their names."""
    room = files("control_plane.console") / "pages"
    shell = (room / "shell.html").read_text()
    made = {}
    for page in PAGES:
        parts = {
            "title": escape(page.title),
            "name": page.name,
            "menu": _menu(page),
            "main": (room / f"{page.name}.html").read_text(),
            "release": escape(__version__),
        }
        # At once: a part that has braces is none of the shell's.
        text = re.sub(r"\{\{(\w+)\}\}", lambda found, parts=parts: parts[found[1]], shell)  # type: ignore[misc]
        made[page.name] = _asset(text.encode(), "text/html; charset=utf-8")
    return made


def _menu(here: Page) -> str:
    links = []
    for page in PAGES:
        if page.is_in_menu:
            href = "/console/" if page is PAGES[0] else f"/console/{page.name}"
            is_here = page is here or (here.name == "model" and page.name == "models")
            current = ' aria-current="page"' if is_here else ""
            links.append(f'<li><a href="{href}"{current}>{escape(page.title)}</a></li>')
    return "\n".join(links)


def static_files() -> Mapping[str, Asset]:
    """The other files by their paths under /console/static/."""
    found: dict[str, Asset] = {}
    _collect(files("control_plane.console") / "static", "", found)
    return found


def _collect(folder: Traversable, prefix: str, found: dict[str, Asset]) -> None:
    for one in folder.iterdir():
        path = f"{prefix}{one.name}"
        if one.is_dir():
            _collect(one, f"{path}/", found)
            continue
        kind = next((KINDS[ending] for ending in KINDS if path.endswith(ending)), "text/plain")
        found[path] = _asset(one.read_bytes(), f"{kind}; charset=utf-8")


def _asset(content: bytes, media_type: str) -> Asset:
    digest = hashlib.blake2b(content, digest_size=12).hexdigest()
    return Asset(content, media_type, f'"{digest}"')
