"""Records stand for what a checkpoint keeps beside its model, and run nothing of it."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from importer.torch_import import stand_ins
from importer.torch_import.stand_ins import Record


@pytest.mark.parametrize("state", [{"a": 1}, (1, 2), None, "text"])
def test_a_record_takes_any_state(state: Any) -> None:
    one = Record("made", "of")
    one.__setstate__(state)
    assert one.values == ("made", "of")
    assert one.__dict__.get("a", 1) == 1


def test_members_of_records_are_records() -> None:
    """Which a compiled model names, by the owner and the name."""
    for owner in (Record(), stand_ins.kind("torch._Thing")):
        found = stand_ins._attribute(owner, "method")
        assert isinstance(found, Record)
        assert found.values == ("method",)
    assert stand_ins._attribute(nn.Conv2d, "forward") is nn.Conv2d.forward
    for other, name in ((torch, "load"), (nn.Module, "apply"), (nn.Conv2d, "compile")):
        with pytest.raises(pickle.UnpicklingError, match="unsafe getattr"):
            stand_ins._attribute(other, name)


# --- NumPy's values ---------------------------------------------------------------------------


def told(value: Any, **changes: Any) -> tuple[Any, bytes]:
    """What a file says of a value: its type as a record, and its bytes."""
    _, (dtype, data) = value.__reduce__()
    _, made_of, state = dtype.__reduce__()
    about = stand_ins.kind("numpy.dtype")(changes.get("code", made_of[0]), *made_of[1:])
    about.__setstate__(state)
    return about, changes.get("data", data)


@pytest.mark.parametrize(
    "value",
    [
        np.float32(0.5),
        np.int64(-7),
        np.bool_(True),
        np.str_("Käse"),
        np.str_(""),
        np.bytes_(b"ab"),
        np.complex64(1j),
        np.datetime64(5, "s"),
        np.dtype(">i4").type(3),
    ],
    ids=repr,
)
def test_numbers_and_texts_of_numpy_are_read(value: Any) -> None:
    found = stand_ins._scalar(*told(value))
    assert found.tobytes() == value.tobytes()
    assert type(found) is type(value)


def test_bytes_in_the_other_order_are_read() -> None:
    about = stand_ins.kind("numpy.dtype")("i4", False, True)
    about.__setstate__((3, ">", None, None, None, -1, -1, 0))
    assert stand_ins._scalar(about, b"\0\0\0\7") == 7


@pytest.mark.parametrize(
    "changes",
    [{"data": b"abc"}, {"code": "S999999999"}, {"code": "O"}, {"code": "i4,i4"}, {"code": 3}],
    ids=str,
)
def test_a_size_that_the_bytes_do_not_have_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="bytes"):
        stand_ins._scalar(*told(np.float64(1), **changes))


@pytest.mark.parametrize("name", stand_ins._WRAPPERS)
def test_a_module_is_found_in_its_wrappers(name: str) -> None:
    inner, attribute = nn.Identity(), stand_ins._WRAPPERS[name]
    wrapper = stand_ins.kind(name)()
    wrapper.__setstate__({"_modules": {attribute: inner}})
    outer = stand_ins.kind(name)(wrapper)
    assert stand_ins.unwrapped(outer) is inner
    assert stand_ins.unwrapped(inner) is inner


def test_a_wrapper_of_itself_ends() -> None:
    name = next(iter(stand_ins._WRAPPERS))
    wrapper = stand_ins.kind(name)()
    wrapper.__setstate__({"_modules": {"module": wrapper}})
    assert isinstance(stand_ins.unwrapped(wrapper), Record)


def test_other_records_hold_no_model() -> None:
    other = stand_ins.kind("argparse.Namespace")(nn.Identity())
    assert stand_ins.unwrapped(other) is other
    assert stand_ins.unwrapped({"a": 1}) == {"a": 1}
