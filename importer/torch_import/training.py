"""What a checkpoint says about its training, as short texts for people. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

# Of the arguments of a training, those that tell one from another.
_ARGUMENTS = (
    "model", "data", "task", "epochs", "imgsz", "batch", "optimizer", "lr0", "patience", "seed",
    "pretrained", "single_cls", "fraction", "freeze",
)  # fmt: skip
_OF_FILE = ("date", "version", "best_fitness")
_MAX_CHARS, _MAX_METRICS = 200, 32


def told(content: Mapping[str, Any]) -> dict[str, str]:
    """Arguments, date and library version of the training, and the metrics it ended with. What is
    no number or text is left out, and long texts are cut: they come from an untrusted file.
    """
    metrics = _dict(content.get("train_metrics"))
    names = [name for name in metrics if isinstance(name, str)][:_MAX_METRICS]
    return {
        **_some(_dict(content.get("train_args")), _ARGUMENTS),
        **_some(content, _OF_FILE),
        **_some(metrics, names),
    }


def _some(values: Mapping[Any, Any], names: Iterable[str]) -> dict[str, str]:
    texts = {name: _text(values.get(name)) for name in names}
    return {_text(name): text for name, text in texts.items() if text}


def _dict(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """Printable, without line breaks; empty for what is neither number nor text."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bool | int | str):
        text = "".join(one for one in str(value)[:_MAX_CHARS] if one.isprintable())
        return text.encode("utf-8", "replace").decode()
    if isinstance(value, list | tuple) and len(value) <= 4:
        return ", ".join(filter(None, map(_text, value)))
    return ""
