"""Errors that a handler raises, and the gRPC statuses with `google.rpc` details that clients receive for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2

from chassis.call import TRACE_KEY
from insta.errors.v1 import errors_pb2

Reason = errors_pb2.Reason
DOMAIN = "insta"
DETAILS_KEY = "grpc-status-details-bin"
# Trailers above 8 KB are at times replaced by RESOURCE_EXHAUSTED on their way.
_DETAILS_LIMIT = 6000
# What gRPC says where it trusts the other side's certificate not.
_REFUSED_CERTIFICATE = ("handshake failed", "Verification Check failed")


class Error(Exception):
    """A call failed for a reason that its caller may know. Raise one of the subclasses.

    Args:
        reason: A value of `insta.errors.v1.Reason`.
        text: A sentence for the person who reads it, naming what to change.
        violations: (field, what is wrong with it) for each violated field.
        retry_after: Seconds after which trying again may help.
    """

    code: ClassVar[grpc.StatusCode]

    def __init__(
        self,
        reason: errors_pb2.Reason.ValueType,
        text: str,
        *,
        violations: Iterable[tuple[str, str]] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.violations = list(violations)
        self.retry_after = retry_after

    @property
    def reason_name(self) -> str:
        """The reason as it travels: POST_NOT_FOUND."""
        return Reason.Name(self.reason).removeprefix("REASON_")

    def status(self) -> status_pb2.Status:
        """The `google.rpc.Status` that clients decode."""
        status = status_pb2.Status(code=self.code.value[0], message=self.text)
        info = error_details_pb2.ErrorInfo(reason=self.reason_name, domain=DOMAIN)
        status.details.append(_packed(info))
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.retry_after * 1e9))
            status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
        if self.violations:
            status.details.append(_packed(self._bad_request(_DETAILS_LIMIT - status.ByteSize())))
        return status

    def _bad_request(self, limit: int) -> error_details_pb2.BadRequest:
        """All violations, or as many as fit into `limit` bytes and how many were left out."""
        bad_request = error_details_pb2.BadRequest()
        size = 0
        for count, (field, description) in enumerate(self.violations):
            violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
            size += violation.ByteSize() + 4
            if size > limit:
                left_out = len(self.violations) - count
                bad_request.field_violations.add(field="...", description=f"and {left_out} more violations")
                break
            bad_request.field_violations.append(violation)
        return bad_request


class InvalidArgument(Error):
    code = grpc.StatusCode.INVALID_ARGUMENT


class Unauthenticated(Error):
    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(Error):
    code = grpc.StatusCode.PERMISSION_DENIED


class NotFound(Error):
    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(Error):
    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(Error):
    code = grpc.StatusCode.FAILED_PRECONDITION


class ResourceExhausted(Error):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(Error):
    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(Error):
    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Unimplemented(Error):
    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(Error):
    code = grpc.StatusCode.INTERNAL


_BY_CODE = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        Unauthenticated,
        PermissionDenied,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
    )
}


class LocalRpcError(grpc.aio.AioRpcError):
    """What a call on a local channel raises: the error of the handler, as a stub's caller expects it."""

    def __init__(self, error: Error, trace_id: str) -> None:
        super().__init__(error.code, grpc.aio.Metadata(), grpc.aio.Metadata(), error.text)
        self.error = error
        self._trace_id = trace_id

    def trailing_metadata(self) -> grpc.aio.Metadata:  # type: ignore[override]  # aio's own class answers this, too
        return grpc.aio.Metadata((TRACE_KEY, self._trace_id), (DETAILS_KEY, self.error.status().SerializeToString()))


def from_downstream(failure: grpc.aio.AioRpcError) -> Error | None:
    """The error that the caller of this service receives when a call to another service failed.

    An error that the other service raised is passed on as it is. None is for a failure that is a defect: it has no
    reason that a caller may know.
    """
    if isinstance(failure, LocalRpcError):
        # Of a defect the log has all there is to say, under the same trace id.
        return failure.error
    code = failure.code()
    if (error := _decoded(failure)) is not None:
        # That services do not admit each other is nothing that their caller can mend.
        return None if error.reason == Reason.REASON_SERVICE_NOT_ALLOWED else error
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED):
        return unavailable()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return deadline_exceeded()
    return None


def told(failure: grpc.aio.AioRpcError | Error) -> str:
    """What the log says of a call to another service that failed: a line, with the setting where TLS was why."""
    if isinstance(failure, Error):
        return f"{failure.code.name}: {failure.text}"
    details = " ".join((failure.details() or "").split())
    line = f"{failure.code().name}: {details}"
    if not any(text in details for text in _REFUSED_CERTIFICATE):
        return line
    return f"{line}. Has a certificate expired, or is it of another part or authority? INSTA_PEER_TLS says where it is."


def _decoded(failure: grpc.aio.AioRpcError) -> Error | None:
    """The error of the suite that `failure` carries in its details."""
    kind = _BY_CODE.get(failure.code())
    packed = (failure.trailing_metadata() or {}).get(DETAILS_KEY)
    if kind is None or packed is None:
        return None
    try:
        status = status_pb2.Status.FromString(packed)
    except message.DecodeError:
        return None
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    bad_request = error_details_pb2.BadRequest()
    for detail in status.details:
        for known in (info, retry, bad_request):
            detail.Unpack(known)
    name = f"REASON_{info.reason}"
    if info.domain != DOMAIN or name not in Reason.keys():  # noqa: SIM118 (an enum wrapper has no `in`)
        return None
    return kind(
        Reason.Value(name),
        status.message,
        violations=[(violation.field, violation.description) for violation in bad_request.field_violations],
        retry_after=retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None,
    )


def invalid_field(field: str, description: str, reason: errors_pb2.Reason.ValueType | None = None) -> InvalidArgument:
    """One field of the request is wrong."""
    return InvalidArgument(
        Reason.REASON_INVALID_FIELDS if reason is None else reason,
        f"{field}: {description}",
        violations=[(field, description)],
    )


def unavailable() -> Unavailable:
    """A part of the suite cannot be reached or is stopping."""
    text = "a part of the suite cannot be reached; try again"
    return Unavailable(Reason.REASON_UNAVAILABLE, text, retry_after=1.0)


def deadline_exceeded() -> DeadlineExceeded:
    """The deadline of the call passed."""
    return DeadlineExceeded(
        Reason.REASON_DEADLINE_EXCEEDED, "the deadline of the call passed before its answer was there"
    )


def _packed(detail: message.Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
