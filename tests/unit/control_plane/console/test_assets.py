"""The console's pages and files hold together: what one names another has."""

import re

from control_plane.console.assets import PAGES, pages, static_files
from control_plane.console.console import POLICY
from control_plane.identity.access import RULES

MAX_LINES = 300
OURS = {
    path: asset.content.decode()
    for path, asset in static_files().items()
    if path.endswith(".js") and not path.startswith("vendor/")
}
SHOWN = {name: asset.content.decode() for name, asset in pages().items()}


def test_pages_name_files_that_are_there_and_run_nothing_inline() -> None:
    for name, page in SHOWN.items():
        assert "{{" not in page
        for link in re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page):
            assert link.removeprefix("/console/static/") in static_files(), link
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:", page)
        assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
        ids = re.findall(r'\bid="([^"]+)"', page)
        assert len(ids) == len(set(ids)), name
        # Landmarks and one heading of the first order; the page says in which language it is.
        assert page.count("<h1") == page.count("<main") == page.count("<nav") == 1
        assert '<html lang="en">' in page


def test_scripts_import_what_is_there_and_make_no_markup() -> None:
    for path, script in OURS.items():
        assert script.count("\n") < MAX_LINES, path
        for named, module in re.findall(r'import (.+?) from "\./([^"]+)"', script):
            assert module in static_files(), (path, module)
            if named.startswith("{"):
                for name in re.findall(r"[\w$]+", named):
                    exported = rf"export (?:async )?(?:const|class|function\*?) {name}\b"
                    assert re.search(exported, OURS[module]), (path, name)
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function|srcdoc",
            script,
        ), path
        assert not re.search(r"https?://(?!www\.w3\.org/)", script), path


def test_each_page_has_the_elements_that_its_script_finds() -> None:
    for page in PAGES:
        ids = set(re.findall(r'\bid="([^"]+)"', SHOWN[page.name]))
        found = set(re.findall(r'find\("([^"]+)"\)', OURS[f"{page.name}.js"]))
        assert found <= ids, page


def test_methods_that_scripts_ask_about_have_rules() -> None:
    known = {method.rpartition("/")[2] for method in RULES}
    asked = {
        name
        for script in OURS.values()
        for name in re.findall(r'(?:refusal|button|notOffered)\(\[?"(\w+)"', script)
    }
    assert len(asked) > 10
    assert asked <= known


def test_the_policy_lets_nothing_in_from_elsewhere() -> None:
    rules = dict(part.strip().split(" ", 1) for part in POLICY.split(";"))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in POLICY
    assert rules["require-trusted-types-for"] == "'script'"


def test_what_others_wrote_has_its_licence_beside_it() -> None:
    folders = {path.rpartition("/")[0] for path in static_files() if path.startswith("vendor/")}
    assert folders
    for folder in folders:
        assert b"Permission is hereby granted" in static_files()[f"{folder}/LICENSE"].content
