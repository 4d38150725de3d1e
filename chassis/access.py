"""Who may call a method, as its contract declares."""

from __future__ import annotations

from google.protobuf import descriptor

from chassis import errors
from chassis.call import Caller
from chassis.errors import Reason
from insta.access.v1 import access_pb2

Access = access_pb2.Access

# The services of gRPC itself carry no option of the suite.
_INFRASTRUCTURE = {
    "grpc.health.v1.Health": Access.ACCESS_PUBLIC,
    "grpc.reflection.v1.ServerReflection": Access.ACCESS_PUBLIC,
    "grpc.reflection.v1alpha.ServerReflection": Access.ACCESS_PUBLIC,
    "grpc.channelz.v1.Channelz": Access.ACCESS_STAFF,
}
_KNOWN = (
    Access.ACCESS_PUBLIC,
    Access.ACCESS_USER,
    Access.ACCESS_STAFF,
    Access.ACCESS_SUPERUSER,
    Access.ACCESS_SERVICE,
)
# Of these the token is not looked at.
WITHOUT_TOKEN = (Access.ACCESS_PUBLIC, Access.ACCESS_SERVICE)


def policy(method: descriptor.MethodDescriptor) -> access_pb2.Access.ValueType:
    """The access that the contract declares for a method.

    Raises:
        ValueError: it declares none that is known here. Nobody may call such a method, so no server may start with it.
    """
    declared = _INFRASTRUCTURE.get(method.containing_service.full_name)
    if declared is None:
        declared = method.GetOptions().Extensions[access_pb2.access]
    if declared not in _KNOWN:
        raise ValueError(f"{method.full_name} declares no access: add the option (insta.access.v1.access) to it")
    return declared


def admit(declared: access_pb2.Access.ValueType, caller: Caller) -> None:
    """Let a verified caller pass.

    Raises:
        PermissionDenied: the method is not for this caller.
    """
    if declared == Access.ACCESS_USER:
        return
    if declared == Access.ACCESS_STAFF and not caller.staff:
        raise errors.PermissionDenied(Reason.REASON_STAFF_ONLY, "this method is for staff")
    if declared == Access.ACCESS_SUPERUSER and not caller.superuser:
        raise errors.PermissionDenied(Reason.REASON_SUPERUSER_ONLY, "this method is for superusers")
