"""What the protos say of each message, field and method, for the OpenAPI document."""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

# In a path of numbers to a comment: which list of a file, message, enum or service comes next.
_IN_FILE = {4: "message_type", 5: "enum_type", 6: "service"}
_IN_MESSAGE = {2: "field", 3: "nested_type", 4: "enum_type"}
_IN_SERVICE = {2: "method"}


def comment_of(full_name: str) -> str:
    """The comment of yolopool.v1.Model, yolopool.v1.Model.name or the like, "" without one."""
    return _comments().get(full_name, "")


@cache
def _comments() -> dict[str, str]:
    data = files("yolopool.v1").joinpath("comments.binpb").read_bytes()
    described = FileDescriptorSet.FromString(data).file
    return dict(found for file in described for found in _of_file(file))


def _of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for place in file.source_code_info.location:
        if place.leading_comments and place.path:
            name = _name_at(file, list(place.path))
            if name:
                yield name, " ".join(place.leading_comments.split())


def _name_at(file: FileDescriptorProto, path: list[int]) -> str:
    """The full name of what a path leads to; empty: it has none, or is part of something."""
    names, here, lists = [file.package], file, _IN_FILE
    for kind, index in zip(path[::2], path[1::2], strict=False):
        if kind not in lists:
            return ""
        here = getattr(here, lists[kind])[index]
        names.append(here.name)
        within = {"message_type": _IN_MESSAGE, "nested_type": _IN_MESSAGE, "service": _IN_SERVICE}
        lists = within.get(lists[kind], {})
    return ".".join(names) if len(path) % 2 == 0 else ""
