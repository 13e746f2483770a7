from __future__ import annotations

import pytest
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from clarifai_grpc.grpc.api.status import status_pb2

from penstock.errors import CallError, ErrorCode
from penstock.protocol.clarifai import statuses

UNTOLD = {  # codes that Clarifai has no word of its own for, and what they come back as
    ErrorCode.RESOURCE_EXHAUSTED: ErrorCode.UNAVAILABLE,
    ErrorCode.CONFLICT: ErrorCode.FAILED_PRECONDITION,
    ErrorCode.URI_TOO_LONG: ErrorCode.INVALID_ARGUMENT,
    ErrorCode.HEADERS_TOO_LARGE: ErrorCode.INVALID_ARGUMENT,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: ErrorCode.INVALID_ARGUMENT,
    ErrorCode.REQUEST_TIMEOUT: ErrorCode.DEADLINE_EXCEEDED,
    ErrorCode.INVALID_OUTPUT: ErrorCode.COMMAND_FAILED,
    ErrorCode.KV_TRANSFER_FAILED: ErrorCode.UPSTREAM_FAILED,
    ErrorCode.COMM_TIMEOUT: ErrorCode.UPSTREAM_FAILED,
    ErrorCode.DISTRIBUTED_RUNTIME_ERROR: ErrorCode.UPSTREAM_FAILED,
}


@pytest.mark.parametrize("code", ErrorCode)
def test_every_error_has_a_status(code: ErrorCode) -> None:
    status = statuses.status_of(CallError("what happened", code), "r1")
    assert status.code not in (codes.SUCCESS, codes.MIXED_STATUS, codes.ZERO)
    assert (status.details, status.req_id) == ("what happened", "r1")
    error = statuses.error_of(status)
    assert error is not None
    assert (error.code, error.message) == (UNTOLD.get(code, code), "what happened")


def test_what_went_well_is_no_error() -> None:
    assert statuses.error_of(statuses.success("r1")) is None
    assert statuses.error_of(status_pb2.Status(code=codes.MIXED_STATUS)) is None


@pytest.mark.parametrize(
    ("code", "expected", "retryable"),
    [
        (codes.FAILURE, ErrorCode.COMMAND_FAILED, False),
        (codes.RUNNER_PROCESSING_FAILED, ErrorCode.UNAVAILABLE, True),
        (codes.MODEL_DEPLOYING, ErrorCode.UNAVAILABLE, True),
        (codes.ZERO, ErrorCode.COMMAND_FAILED, False),
        (codes.INPUT_UNSUPPORTED_FORMAT, ErrorCode.COMMAND_FAILED, False),
        (123456, ErrorCode.COMMAND_FAILED, False),
    ],
)
def test_what_a_runner_reports(code: int, expected: ErrorCode, retryable: bool) -> None:
    error = statuses.error_of(status_pb2.Status(code=code))
    assert error is not None
    assert (error.code, error.retryable) == (expected, retryable)


def test_details_say_more_than_the_description() -> None:
    error = statuses.error_of(status_pb2.Status(code=codes.FAILURE, description="d", details="e" * 10_000))
    assert error is not None
    assert error.message == "e" * statuses.MAX_SAID
    described = statuses.error_of(status_pb2.Status(code=codes.FAILURE, description="d"))
    assert described is not None
    assert described.message == "d"
    bare = statuses.error_of(status_pb2.Status(code=codes.MODEL_UNTRAINED))
    assert bare is not None
    assert bare.message == "it failed with MODEL_UNTRAINED"
    assert statuses.name_of(-5) == "-5"


def test_an_error_may_have_a_status_of_its_own() -> None:
    loss = statuses.StatusError("r is gone", ErrorCode.UNAVAILABLE, codes.RUNNER_PROCESSING_FAILED)
    status = statuses.status_of(loss, "r1")
    assert (status.code, status.description) == (codes.RUNNER_PROCESSING_FAILED, "Runner processing failed")
    assert (status.details, status.req_id, status.http_status_code) == ("r is gone", "r1", 503)
    error = statuses.error_of(status)
    assert error is not None
    assert error.code is ErrorCode.UNAVAILABLE
