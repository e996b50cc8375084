from control_plane.gateway.health.health_pages import Check, report


def test_as_kube_apiserver_prints_them() -> None:
    checks = [Check("registry", ""), Check("store", "it is away", required=False)]
    assert report(checks, ()) == (
        True,
        "[+]registry ok\n[ ]store not required: it is away\nreadyz check passed\n",
    )
    checks.append(Check("drain", "this process stops"))
    passed, text = report(checks, ())
    assert not passed
    assert "[-]drain failed: this process stops\n" in text
    assert text.endswith("readyz check failed\n")


def test_what_is_excluded_may_fail() -> None:
    checks = [Check("drain", "this process stops"), Check("registry", "")]
    assert report(checks, ["drain", "unknown"]) == (
        True,
        "[+]drain excluded: ok\n[+]registry ok\nreadyz check passed\n",
    )
