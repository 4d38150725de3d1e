"""Generates the Python stubs in `insta/` and the descriptor set `insta/insta.binpb` from the contracts in `protos/`.

    python protos/generate.py [OUTPUT]      OUTPUT is the folder to hold `insta/`, the project's own by default

`buf/validate/validate.proto` is not kept here: the protovalidate package carries its descriptor. Its stub lands in
`insta/buf/`, so that it meets no other package's `buf`.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from google.rpc import error_details_pb2
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

PROTOS = Path(__file__).parent
PROJECT = PROTOS.parent
RULES = "buf/validate/validate.proto"


def generate(output: Path) -> None:
    """Write `insta/` below `output`, in place of one that is there."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as scratch:
        made = _generated(Path(scratch))
        target = output / made.name
        if target.exists():
            target.rename(Path(scratch) / "replaced")
        made.rename(target)


def _generated(scratch: Path) -> Path:
    """The package of the stubs, made in the folder `scratch`."""
    package = scratch / "insta"
    package.mkdir()
    contracts = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    services = [name for name in contracts if re.search(r"^service ", (PROTOS / name).read_text(), re.MULTILINE)]
    rules = scratch / "rules.binpb"
    rules.write_bytes(_rules().SerializeToString())
    inputs = [f"--descriptor_set_in={rules}", f"-I{PROTOS}"]
    _protoc(*inputs, f"--python_out={scratch}", f"--mypy_out=quiet:{scratch}", *contracts)
    _protoc(*inputs, f"--python_out={package}", f"--mypy_out=quiet:{package}", RULES)
    _protoc(*inputs, f"--grpc_python_out={scratch}", f"--mypy_grpc_out=quiet,only_async:{scratch}", *services)
    descriptors = package / "insta.binpb"
    # With what the details of errors are made of, for clients in other languages.
    details = [
        f"-I{Path(error_details_pb2.__file__).parents[2]}",
        "google/rpc/error_details.proto",
        "google/rpc/status.proto",
    ]
    everything = ["--include_imports", "--include_source_info", f"--descriptor_set_out={descriptors}"]
    _protoc(*inputs, *everything, *contracts, *details)
    for stub in [*package.rglob("*.py"), *package.rglob("*.pyi")]:
        text = stub.read_text()
        stub.write_text(re.sub(r"\bfrom buf\.validate import", "from insta.buf.validate import", text))
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()
    (package / "py.typed").touch()
    return package


def _rules() -> descriptor_pb2.FileDescriptorSet:
    """The rules of buf.validate, and the files of protobuf itself that contracts import."""
    files = descriptor_pb2.FileDescriptorSet()
    for module in (any_pb2, descriptor_pb2, duration_pb2, timestamp_pb2, field_mask_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.add().MergeFromString(validate_pb.desc().proto.to_binary())
    return files


def _protoc(*arguments: str) -> None:
    if code := protoc.main(["protoc", *arguments]):
        raise SystemExit(code)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT)
