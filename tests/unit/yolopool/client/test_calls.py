"""Both clients have the same methods, each made of the same call."""

import inspect
from typing import Any

import grpc
import pytest

from yolopool.client import calls, uploads
from yolopool.client.async_client import AsyncClient
from yolopool.client.calls import Call, Services, StreamCall
from yolopool.client.client import Client
from yolopool.client.labels import labelling
from yolopool.client.rollout import family_records, schedule_calls
from yolopool.client.rules import rule_calls


def methods(client: type) -> dict[str, Any]:
    return {name: value for name, value in vars(client).items() if not name.startswith("_")}


def parameters(method: Any) -> list[inspect.Parameter]:
    """Of asyncio, what is iterated over may come from an asynchronous iterator too."""
    found = inspect.signature(method).parameters.values()
    return [one.replace(annotation=None) if one.name == "frames" else one for one in found]


def test_both_clients_have_the_same_documented_methods() -> None:
    blocking, awaited = methods(Client), methods(AsyncClient)
    assert list(blocking) == list(awaited)
    for name, method in blocking.items():
        assert (method.__name__, awaited[name].__name__) == (name, name)
        assert inspect.getdoc(method)
        assert parameters(method) == parameters(awaited[name])


def test_a_method_is_signed_as_its_call_with_self() -> None:
    parameters = inspect.signature(Client.load).parameters
    assert list(parameters) == ["self", *inspect.signature(calls.load).parameters]
    assert parameters["replicas"].default == 1
    assert inspect.iscoroutinefunction(AsyncClient.load)


@pytest.mark.parametrize(
    "call",
    [
        calls.detect(b"image", "shapes"), labelling.models(), calls.model("a"), calls.load("a"),
        labelling.set_labels("a", {"line": "7"}),
        calls.unload("a"), rule_calls.delete("a"), calls.set_residency("a", "normal"),
        calls.set_batching("a", "cpu", None), calls.set_variant("a", "cpu", ""),
        calls.changeover(["a"]), schedule_calls.set_schedule("a", "* * * * *", ["a"]),
        schedule_calls.schedules(), schedule_calls.delete_schedule("a"),
        family_records.family("a:any"), family_records.set_family("a:any", ["b", "c"]),
        calls.workers(), calls.drain_worker("a"), calls.fleet(),
        calls.bench("a"), calls.events(), calls.plan_load("a"), calls.explain_model("a"),
        calls.explain_request("a"),
    ],
    ids=lambda call: call.method,
)  # fmt: skip
def test_every_call_names_a_method_of_a_service(call: Call[Any] | StreamCall[Any]) -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        assert callable(Services(channel).method(call))


def test_an_option_that_nobody_declared_is_a_type_error() -> None:
    misspelt: dict[str, Any] = {"confidense": 0.5}
    with pytest.raises(TypeError, match="confidense"):
        calls.detect(b"image", "shapes", **misspelt)
    with pytest.raises(TypeError, match="confidense"):
        next(uploads.register("shapes", "best.pt", **misspelt))
