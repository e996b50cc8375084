"""Records stand for what a checkpoint keeps beside its model, and run nothing of it."""

import pickle
from typing import Any

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
    with pytest.raises(pickle.UnpicklingError, match="unsafe getattr"):
        stand_ins._attribute(torch, "load")


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
