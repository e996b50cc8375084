import pytest
def test_dbg(pool, opened):
    page = opened.go("")
    opened.sign_in(pool.api_key)
    page.wait_for_selector("#devices article")
    opened.go("models")
    page.wait_for_timeout(3000)
    page.screenshot(path="/tmp/trypage/dbg.png")
    print(page.inner_html("#models")[:1500], opened.complaints)
