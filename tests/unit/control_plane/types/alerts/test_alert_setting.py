"""Receivers, silences and thresholds by pattern."""

from dataclasses import replace

from control_plane.types.alerts.alert_setting import (
    Silence,
    Threshold,
    Webhook,
    name_matches,
    settings_of,
)

HOOK = Webhook("ops", "https://example.com/", secret="word", rule="Yolopool*")


def test_a_model_is_named_with_and_without_its_version() -> None:
    for pattern, subject, matches in (
        ("bolts", "bolts@3", True), ("bolts@3", "bolts@3", True), ("bolts@4", "bolts@3", False),
        ("team/*", "team/bolts@3", True), ("bolt", "bolts@3", False), ("*", "", True),
        ("gpu-*", "gpu-2", True),
    ):  # fmt: skip
        assert name_matches(pattern, subject) is matches, (pattern, subject)


def test_a_receiver_that_is_set_again_keeps_its_secret() -> None:
    again = replace(HOOK, secret="", form="slack")
    assert again.after(HOOK) == replace(again, secret="word")
    assert replace(HOOK, secret="new").after(HOOK).secret == "new"
    assert again.after(None) == again


def test_a_receiver_takes_what_it_asked_for() -> None:
    loud = replace(HOOK, severity="critical")
    assert HOOK.takes("YolopoolBlind", "warning")
    assert not loud.takes("YolopoolBlind", "warning")
    assert loud.takes("YolopoolNoWorker", "critical")
    assert not replace(HOOK, rule="YolopoolNo*").takes("YolopoolBlind", "warning")


def test_a_silence_is_of_rules_and_subjects_until_a_time() -> None:
    silence = Silence("s", "YolopoolModel*", "bolts", 100.0)
    assert silence.covers("YolopoolModelLate", "bolts@2", 99.9)
    assert not silence.covers("YolopoolModelLate", "bolts@2", 100.0)
    assert not silence.covers("YolopoolBlind", "bolts@2", 1.0)
    assert not silence.covers("YolopoolModelLate", "nuts@2", 1.0)


def test_settings_of_one_kind() -> None:
    threshold = Threshold("YolopoolBlind", "*", value=5.0)
    both = {one.key: one for one in (HOOK, threshold)}
    assert settings_of(both, Threshold) == [threshold]
    assert settings_of(both, Webhook) == [HOOK]
    assert Threshold("YolopoolBlind", "*").says_nothing
    assert not threshold.says_nothing
