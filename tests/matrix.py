"""The marker `matrix`: `make test` runs a sample of a test's cases, `--full` runs them all.

    @pytest.mark.matrix(sample=2)
    @pytest.mark.parametrize("name", MANY)

With `of="a name"` all tests with that name are the cases of one matrix.

Which cases is decided by a seed, the day unless YOLOPOOL_TEST_SEED is set. Consecutive seeds take
consecutive cases of a shuffled order: after cases / sample days every case has run.
"""

import datetime
import os
import random
from collections.abc import Iterator, Sequence

import hypothesis
import pytest

# Also set for the workers of pytest-xdist, which must all collect the same tests.
SEED = "YOLOPOOL_TEST_SEED"
# How many examples of a property are tried, where the test does not say: hypothesis' own number.
FULL_EXAMPLES = 100
# One in so many of them is tried without --full.
FEWER_EXAMPLES = 8


def sample_of(name: str, count: int, sample: int, seed: int) -> set[int]:
    """Which of `count` cases of the test `name` are run."""
    order = list(range(count))
    random.Random(name).shuffle(order)
    return {order[(seed * sample + i) % count] for i in range(min(sample, count))}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="every case of the tests marked `matrix`")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "matrix(sample, of): without --full only so many of the cases are run, 0 for none; of: a "
        "name that tests share which are cases of one matrix",
    )
    os.environ.setdefault(SEED, str(datetime.date.today().toordinal()))  # noqa: DTZ011 - any day does
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = os.environ[SEED]
    # How long an example takes says something of the machine and nothing of what is tested.
    full = hypothesis.settings(deadline=None, max_examples=FULL_EXAMPLES)
    fewer = hypothesis.settings(full, max_examples=FULL_EXAMPLES // FEWER_EXAMPLES)
    hypothesis.settings.register_profile("full", full)
    hypothesis.settings.register_profile("sample", fewer)
    hypothesis.settings.load_profile("full" if config.getoption("--full") else "sample")


def is_full() -> bool:
    """Whether every case and example is run."""
    return hypothesis.settings().max_examples >= FULL_EXAMPLES


def examples(count: int, sample: int = 0) -> hypothesis.settings:
    """The settings of a property that wants so many examples in a full run, and `sample` of them
    (0: as many fewer as of other properties) in another.
    """
    now = hypothesis.settings().max_examples
    if sample and not is_full():
        return hypothesis.settings(max_examples=sample)
    return hypothesis.settings(max_examples=max(1, count * now // FULL_EXAMPLES))


def pytest_report_header(config: pytest.Config) -> str:
    if config.getoption("--full"):
        return f"every case of every test, {SEED}={os.environ[SEED]}"
    return f"a sample of the cases of tests marked `matrix`, {SEED}={os.environ[SEED]}; all: --full"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    left_out = set(_left_out(items, int(os.environ[SEED])))
    # A case that is named on the command line is run.
    left_out -= {item for item in left_out if _named(item, config.args)}
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def _left_out(items: Sequence[pytest.Item], seed: int) -> Iterator[pytest.Item]:
    matrices: dict[str, tuple[int, list[pytest.Item]]] = {}
    for item in items:
        marker = item.get_closest_marker("matrix")
        if marker is not None:
            name = marker.kwargs.get("of") or item.nodeid.partition("[")[0]
            matrices.setdefault(name, (marker.kwargs["sample"], []))[1].append(item)
    for name, (sample, cases) in matrices.items():
        kept = sample_of(name, len(cases), sample, seed)
        yield from (case for index, case in enumerate(cases) if index not in kept)


def _named(item: pytest.Item, arguments: Sequence[str]) -> bool:
    return any("::" in argument and item.nodeid.endswith(argument) for argument in arguments)
