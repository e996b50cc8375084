"""Jobs: urgent ones at once and in order, idle ones behind batches but not for ever."""

from typing import Any, cast

from worker.concurrency.reply import Reply
from worker.engine.jobs import PATIENCE, Job, JobQueue


class Kept:
    """A reply that keeps its answer."""

    def __init__(self) -> None:
        self.answers: list[tuple[Any, Exception | None]] = []

    def __call__(self, answer: Any, error: Exception | None) -> None:
        self.answers.append((answer, error))


def a_job(call: Any = None) -> tuple[Job, Kept]:
    kept = Kept()
    return Job(call or (lambda: None), cast(Reply[Any], kept)), kept


def test_jobs_come_in_order_urgent_ones_apart() -> None:
    jobs = JobQueue()
    (first, _), (second, _), (idle, _) = a_job(), a_job(), a_job()
    jobs.add(idle, idle=True)
    jobs.add(first, idle=False)
    jobs.add(second, idle=False)
    assert jobs.has_urgent
    assert [jobs.pop_urgent(), jobs.pop_urgent(), jobs.pop_urgent()] == [first, second, None]
    assert [jobs.pop_idle(), jobs.pop_idle()] == [idle, None]


def test_an_idle_job_is_overtaken_by_so_many_batches() -> None:
    jobs = JobQueue()
    for _ in range(PATIENCE):
        jobs.batch_went_first()  # nobody waits yet
    (first, _), (second, _) = a_job(), a_job()
    jobs.add(first, idle=True)
    jobs.add(second, idle=True)
    for _ in range(PATIENCE):
        assert jobs.pop_overdue() is None
        jobs.batch_went_first()
    assert jobs.is_patience_over
    assert jobs.pop_overdue() is first
    assert jobs.pop_overdue() is None, "the next waits anew"
    assert jobs.drain_idle() == (second,)
    assert jobs.drain_idle() == ()


def test_a_job_answers_or_tells_its_error() -> None:
    done, answer = a_job(lambda: 3)
    done.run()
    error = ValueError("injected")

    def fails() -> None:
        raise error

    failed, told = a_job(fails)
    failed.run()
    assert (answer.answers, told.answers) == ([(3, None)], [(None, error)])
