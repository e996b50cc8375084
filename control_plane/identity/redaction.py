"""Takes what a caller may not see out of a reply. Pure.

Only for callers whose grants are not *: the others' replies are not touched.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from yolopool.errors import ModelNotFound

IsGranted = Callable[[str], bool]
INSTEAD = "another model"
_REF_END = re.compile("[@:]")
# name, team/name, with a build and a version: what stands in sentences for a model.
_WORDS = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)?(?:\+[a-z0-9-]+)?(?:@\d+)?")

# What the author of a model says of it, and what is computed of its file. A hidden model may have
# the name of a class: the word stays, and tells nothing of that model.
_OF_AUTHOR = frozenset(
    {
        "architecture",
        "architecture_yaml",
        "class_names",
        "signature",
        "signed_comment",
        "signer",
        "source_name",
        "uri",
    }
)
# So may an alias of a model that the caller sees, a class or a measure.
_OF_ALIAS = frozenset(
    {"yolopool.v1.Alias.name", "yolopool.v1.RolloutCount.name", "yolopool.v1.RolloutMeasure.name"}
)


def redacted_text(text: str, hidden: Callable[[str], bool]) -> str:
    """A sentence without the names of models that the caller may not see.

    `hidden`: whether a name is that of a model, and not granted.
    """

    def word(match: re.Match[str]) -> str:
        said = match.group()
        name = said.partition("@")[0].partition("+")[0]
        # A full stop may end the sentence.
        return INSTEAD if hidden(name) or hidden(name.rstrip(".")) else said

    return _WORDS.sub(word, text)


def words(text: str) -> set[str]:
    """All in a text that `redacted_text` may take for the name of a model."""
    found = (match.group().partition("@")[0].partition("+")[0] for match in _WORDS.finditer(text))
    return {form for name in found for form in (name, name.rstrip("."))}


def texts(message: Message) -> Iterator[str]:
    """The strings of a message, also those in others and in maps."""
    for _, value in message.ListFields():
        yield from _texts_in(value)


def _texts_in(value: Any) -> Iterator[str]:
    """Those of a field's value, whatever its kind."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Message):
        yield from texts(value)
    elif isinstance(value, Mapping):
        for part in (*value.keys(), *value.values()):
            yield from _texts_in(part)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for part in value:
            yield from _texts_in(part)


def redact(message: Message, hidden: Callable[[str], bool]) -> None:
    """Removes list entries about hidden models, clears fields that name them, and rewrites texts.
    In place.
    """
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            _redact_messages(message, field, value, hidden)
        elif field.type == FieldDescriptor.TYPE_STRING and not _is_own_word(field):
            _redact_strings(message, field, value, hidden)


def redact_error(answer: Any, hidden: Callable[[str], bool]) -> None:
    """Of an answer in a stream that tells of an error, the words of that. In place."""
    if "error" not in answer.DESCRIPTOR.fields_by_name or not answer.HasField("error"):
        return
    if answer.error.reason == ModelNotFound.reason:
        # It may suggest other names.
        answer.error.message = "there is no such model: list the models to see their names"
    redact(answer.error, hidden)


def _redact_messages(message: Any, field: Any, value: Any, hidden: Callable[[str], bool]) -> None:
    if field.message_type.GetOptions().map_entry:
        if field.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_MESSAGE:
            for one in value.values():
                redact(one, hidden)
        return
    if not field.is_repeated:
        if _is_hidden(value, hidden):
            message.ClearField(field.name)
        else:
            redact(value, hidden)
        return
    kept = [one for one in value if not _is_hidden(one, hidden)]
    if len(kept) < len(value):
        copies = [type(one).FromString(one.SerializeToString()) for one in kept]
        del value[:]
        value.extend(copies)
    for one in value:
        redact(one, hidden)


def _redact_strings(message: Any, field: Any, value: Any, hidden: Callable[[str], bool]) -> None:
    if field.is_repeated:
        value[:] = [redacted_text(one, hidden) for one in value]
    else:
        setattr(message, field.name, redacted_text(value, hidden))


def _is_own_word(field: Any) -> bool:
    return field.name in _OF_AUTHOR or field.full_name in _OF_ALIAS


def _is_hidden(message: Any, hidden: Callable[[str], bool]) -> bool:
    """Whether a message is about what the caller may not see. A family is seen by who sees all of
    its members.
    """
    is_alias = message.DESCRIPTOR.full_name == "yolopool.v1.Alias"
    named = message.family.members if is_alias else ()
    members = (_REF_END.split(member.model)[0] for member in named)
    return hidden(_about(message)) or any(map(hidden, members))


def _about(message: Any) -> str:
    """The model that a message is about; empty: none."""
    name = message.DESCRIPTOR.full_name
    if name in ("yolopool.v1.VersionKey", "yolopool.v1.Alias"):
        return str(message.model)
    if name == "yolopool.v1.Rollout":
        return str(message.alias).partition(":")[0]
    if name == "yolopool.v1.Model":
        return str(message.name)
    version = message.DESCRIPTOR.fields_by_name.get("version")
    if version is not None and version.message_type is not None and message.HasField("version"):
        return str(message.version.model)
    return ""
