"""All workers in a plan: who has most free, and who has what, whatever happens in between."""

from hypothesis import given
from hypothesis import strategies as st

from control_plane.scheduling.proposed_fleet import ProposedFleet
from control_plane.types.footprint import Footprint
from tests.unit.control_plane.fleets import NOW, key, replica, snapshot, worker
from yolopool.vocabulary import ReplicaState

MIB = 2**20
EMPTY = snapshot([])
STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "drop", "assign", "release", "ask"]),
              st.integers(0, 3), st.integers(1, 90)),
    max_size=40,
)  # fmt: skip


@given(STEPS)
def test_the_most_free_worker_is_found_and_the_index_is_true(
    steps: list[tuple[str, int, int]],
) -> None:
    fleet = ProposedFleet()
    for step, number, size in steps:
        name = f"w{number}"
        if step == "put":
            fleet.put(worker(name, 100, [replica("a", size)]), EMPTY, NOW)
        elif step == "drop":
            fleet.drop(name)
        elif name in fleet.workers:
            one = fleet.workers[name]
            if step == "assign":
                fleet.assign(one, key("b"), Footprint(size, 0), pinned=False)
            elif step == "release" and key("a") in one.replicas:
                fleet.release(one, key("a"))
        free = {id_: one.free_bytes for id_, one in fleet.workers.items()}
        best = min(free, key=lambda id_: (-free[id_], id_), default=None)
        found = fleet.most_free(lambda _: True)
        assert (found.id if found is not None else None) == best
        for name in "ab":
            holders = sorted(id_ for id_, one in fleet.workers.items() if key(name) in one.replicas)
            assert [one.id for one in fleet.holders(key(name))] == holders


def test_the_most_free_of_those_that_suit() -> None:
    fleet = ProposedFleet.of(snapshot([worker("w1", 50), worker("w2", 80)]), NOW)
    for _ in range(2):  # asking changes nothing
        assert fleet.most_free(lambda one: one.id != "w2") is fleet.workers["w1"]
    assert fleet.most_free(lambda _: False) is None


def test_a_worker_that_takes_no_work_is_not_in_it() -> None:
    gone = worker("w1", lease=NOW)
    assert ProposedFleet.of(snapshot([gone, worker("w2")]), NOW).workers.keys() == {"w2"}


def test_its_repr_says_what_is_there() -> None:
    held = [replica("a"), replica("b"), replica("c", state=ReplicaState.WARM)]
    leaving = replica("d", state=ReplicaState.RELEASING)
    fleet = ProposedFleet.of(
        snapshot([worker("w1", 130 * MIB, held), worker("w2", 10, [leaving])]), NOW
    )
    fleet.release(fleet.workers["w1"], key("b"))
    assert repr(fleet) == "ProposedFleet(2 workers, 1 hot, 1 warm, 2 leaving, 130 MiB free)"
    assert repr(ProposedFleet()) == "ProposedFleet(0 workers, 0 MiB free)"
