"""What other control planes told, and which of them are silent."""

from control_plane.alerts.fellow_planes import GONE_S, FellowPlanes, readings_of, told_text
from control_plane.alerts.history import History

READINGS = {("n_total", (("k", "a b"), ("m", "x@1"))): 2.5, ("yolopool_reconciler", ()): 1.0}


def up(history: History) -> dict[str, float]:
    return {dict(labels)["instance"]: value for labels, value in
            history.latest("up", lambda _: True).items()}  # fmt: skip


def test_what_is_told_is_heard() -> None:
    assert readings_of(told_text("h:1", 4, READINGS)) == ("h:1", READINGS)
    fellows, history = FellowPlanes("a", 5.0), History()
    assert fellows.hear({"a": "own", "b": told_text("h:1", 1, READINGS)}, history, 0.0) == []
    assert up(history) == {"b": 1.0}
    assert fellows.someone_leads(history)
    assert fellows.is_first(0.0)
    assert not FellowPlanes("c", 5.0).someone_leads(History())


def test_one_that_is_silent_is_down_and_forgotten_in_time() -> None:
    fellows, history = FellowPlanes("b", 5.0), History()
    text = told_text("h:1", 1, READINGS)
    for now, is_up in ((0.0, 1.0), (19.0, 1.0), (20.0, 0.0)):
        assert fellows.hear({"a": text}, history, now) == []
        assert up(history) == {"a": is_up}
    assert not history.latest("yolopool_reconciler", lambda _: True)
    assert fellows.is_first(20.0)  # though its name is not the first
    assert fellows.hear({"a": text}, history, GONE_S) == ["a"]
    assert fellows.hear({}, history, GONE_S + 5) == []
    assert up(history) == {}


def test_a_new_process_at_its_address_takes_its_place_and_a_goodbye_is_no_silence() -> None:
    fellows, history = FellowPlanes("b", 5.0), History()
    told = {"a": told_text("h:1", 1, READINGS)}
    fellows.hear(told, history, 0.0)
    told["c"] = told_text("h:1", 1, READINGS)
    assert fellows.hear(told, history, 10.0) == []  # both may be up for a moment
    assert fellows.hear(told, history, 21.0) == ["a"]
    assert fellows.hear({"c": told_text("h:1", 2, READINGS)}, history, 26.0) == []
    assert up(history) == {"c": 1.0}


def test_what_can_t_be_read_is_nobody() -> None:
    fellows, history = FellowPlanes("b", 5.0), History()
    for text in ("{", "[]", '{"place":"h","rows":[["n",1,"x"]]}', '{"rows":[]}'):
        fellows.hear({"z": text}, history, 0.0)
    assert up(history) == {}
