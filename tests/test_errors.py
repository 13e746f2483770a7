"""The code table against the wire's own, typed out, and the errors that carry it."""

from __future__ import annotations

import pytest

from penstock.errors import (
    FAULTS,
    CallError,
    CommandError,
    ConnectionFailed,
    ErrorCode,
    Fault,
    ReplayTruncated,
)

# code | HTTP | gRPC | WebSocket close | retryable
TABLE = """
invalid_argument          | 400 | INVALID_ARGUMENT    | -    | no
unauthenticated           | 401 | UNAUTHENTICATED     | 1008 | no
permission_denied         | 403 | PERMISSION_DENIED   | 1008 | no
not_found                 | 404 | NOT_FOUND           | -    | no
method_not_allowed        | 405 | UNIMPLEMENTED       | -    | no
conflict                  | 409 | ABORTED             | -    | no
failed_precondition       | 409 | FAILED_PRECONDITION | -    | no
gone                      | 410 | OUT_OF_RANGE        | -    | no
too_large                 | 413 | RESOURCE_EXHAUSTED  | 1009 | no
uri_too_long              | 414 | INVALID_ARGUMENT    | -    | no
headers_too_large         | 431 | INVALID_ARGUMENT    | -    | no
unsupported_media_type    | 415 | INVALID_ARGUMENT    | 1003 | no
request_timeout           | 408 | DEADLINE_EXCEEDED   | -    | yes
resource_exhausted        | 429 | RESOURCE_EXHAUSTED  | -    | yes
cancelled                 | 499 | CANCELLED           | -    | no
command_failed            | 500 | INTERNAL            | -    | no
invalid_output            | 500 | INTERNAL            | -    | no
internal                  | 500 | INTERNAL            | 1011 | no
not_implemented           | 501 | UNIMPLEMENTED       | -    | no
unavailable               | 503 | UNAVAILABLE         | 1012 | yes
deadline_exceeded         | 504 | DEADLINE_EXCEEDED   | -    | yes
upstream_failed           | 502 | UNAVAILABLE         | -    | yes
kv_transfer_failed        | 502 | UNAVAILABLE         | -    | yes
comm_timeout              | 502 | UNAVAILABLE         | -    | yes
distributed_runtime_error | 502 | UNAVAILABLE         | -    | yes
"""


def row(line: str) -> tuple[str, Fault]:
    code, http, grpc, close, retryable = (cell.strip() for cell in line.split("|"))
    return code, Fault(int(http), grpc, None if close == "-" else int(close), retryable == "yes")


def test_the_table_is_the_wires() -> None:
    expected = dict(row(line) for line in TABLE.strip().splitlines())
    assert {code.value: fault for code, fault in FAULTS.items()} == expected


def test_every_code_has_its_row() -> None:
    assert set(FAULTS) == set(ErrorCode)


def test_the_first_five_codes_are_those_of_the_typed_protocol() -> None:
    assert [code.value for code in ErrorCode][:5] == [
        "invalid_argument",
        "resource_exhausted",
        "unavailable",
        "deadline_exceeded",
        "not_implemented",
    ]


@pytest.mark.parametrize("code", ErrorCode)
def test_a_code_prints_its_name_and_equals_its_value(code: ErrorCode) -> None:
    assert str(code) == f"{code}" == f"ErrorCode.{code.name}"
    assert code == code.name.lower()


@pytest.mark.parametrize("code", ErrorCode)
def test_a_call_error_follows_the_table(code: ErrorCode) -> None:
    error = CallError("what happened", code.value)
    assert error.code is code
    assert (error.http_status, error.retryable) == (FAULTS[code].http, FAULTS[code].retryable)
    assert CallError("what happened", code, retryable=not error.retryable).retryable is not error.retryable


def test_each_kind_of_call_error_has_its_own_code() -> None:
    assert CallError("").code is ErrorCode.INTERNAL
    assert CommandError("").code is ErrorCode.COMMAND_FAILED
    assert ConnectionFailed("").code is ErrorCode.UNAVAILABLE
    truncated = ReplayTruncated("", first_seq=4)
    assert (truncated.code, truncated.first_seq) == (ErrorCode.GONE, 4)


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(ValueError, match="oom"):
        CallError("", "oom")
