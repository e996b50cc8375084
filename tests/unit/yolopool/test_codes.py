"""Every code of an error has one word at each door."""

from http import HTTPStatus

import grpc

from yolopool import errors
from yolopool.codes import CODES, STATUSES, http_status, of_http
from yolopool.error_table import BY_CODE, BY_REASON


def test_every_code_of_the_errors_has_a_row_and_is_one_of_grpc() -> None:
    assert set(BY_CODE) | {errors.YolopoolError.code} == set(CODES)
    assert all(hasattr(grpc.StatusCode, name) for name in CODES)


def test_statuses_are_errors_of_http_and_no_two_codes_share_one() -> None:
    statuses = [code.http_status for code in CODES.values()]
    assert len(set(statuses)) == len(statuses)
    assert all(400 <= status < 600 for status in statuses)


def test_what_the_server_is_to_blame_for_is_5xx_and_nothing_else() -> None:
    servers = {name for name, code in CODES.items() if code.http_status >= 500}
    assert servers == {"INTERNAL", "UNIMPLEMENTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"}


def test_a_reason_may_have_a_closer_status_which_http_has_and_its_code_has_not() -> None:
    for reason, status in STATUSES.items():
        code = BY_REASON[reason].code
        assert HTTPStatus(status).value != CODES[code].http_status, reason
        assert http_status(code, reason) == status
    assert http_status("NOT_FOUND", "MODEL_NOT_FOUND") == 404
    # The class says who is to blame, and whether the same call may succeed later.
    assert all(BY_REASON[one].retryable for one, status in STATUSES.items() if status == 503)
    assert not any(BY_REASON[one].retryable for one, status in STATUSES.items() if status < 500)


def test_no_error_ends_a_command_with_success() -> None:
    assert all(code.exit_code > 0 for code in CODES.values())


def test_a_status_of_http_leads_back_to_its_code() -> None:
    assert {name: of_http(code.http_status) for name, code in CODES.items()} == {
        name: name for name in CODES
    }
    assert [of_http(status) for status in (405, 413, 415, 502)] == [
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "INTERNAL",
    ]
