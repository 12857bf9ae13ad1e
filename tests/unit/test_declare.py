"""Parameters as they are declared: their defaults, what clients are told of them, and numbers that JSON lacks."""

import json
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from common import planning
from common.batch import BatchSpec
from common.errors import InvalidInput
from common.jobs import Jobs
from common.options import read_options
from common.simulations import registry
from common.simulations.declare import MARK, DeclarationError, Simulation, as_json, simulation
from common.spelling import parse_values
from services.worker.points import swept

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def declared(function: Callable[..., Any]) -> Simulation:
    """The function as a simulation."""
    found: Simulation = getattr(simulation(outputs={"x": float})(function), MARK)
    return found


def capped(rng: object, *, cap: float = math.inf, floor: float | None = -math.inf, n: int = 1) -> dict[str, Any]:
    """Whose limits are none unless given."""
    return {"x": cap, "floor": floor}


def strict(text: str) -> Any:
    """What other languages read: JSON without NaN and Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("kind", "default", "told"),
    [
        (int, "abc", "k has the default 'abc': input should be a valid integer"),
        (int, "5", "k has the default '5': a text is no number"),
        (bool, "yes", "k has the default 'yes': a text is no number"),
        (int, 1.5, "k has the default 1.5: input should be a valid integer"),
        (float, None, "k has the default None: input should be a valid number; or write its type as … | None"),
        (str, 5, "k has the default 5: input should be a valid string"),
        (Annotated[float, Field(gt=0)], 0.0, "k has the default 0.0: input should be greater than 0"),
        (float, Field(-1, gt=0), "k has the default -1: input should be greater than 0"),
        (Annotated[float, Field(le=10)], math.inf, "k has the default inf: input should be less than or equal to 10"),
        (Literal["a", "b"], "c", "k has the default 'c'"),
        (list[float], [math.inf], "k has the default [inf]: input should be a finite number"),
        (int | float, math.inf, "k cannot be described to clients"),
        (Callable[[], int], abs, "k cannot be described to clients"),
    ],
)
def test_a_wrong_default_is_told_where_it_is_written(kind: Any, default: Any, told: str) -> None:
    """With the parameter; and not in each job."""

    def wrong(rng: object, *, good: int = 1, k: kind = default) -> None: ...

    with pytest.raises(DeclarationError) as caught:
        declared(wrong)
    assert caught.value.message.startswith(f"wrong: parameter {told}")


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        (int, 5),
        (int, True),
        (float, 1),
        (float | None, None),
        (str, ""),
        (Literal["a", 1], 1),
        (list[int], [1, 2]),
        (Any, "x"),
        (float, Field(2.5, gt=0)),
        (Annotated[int, Field(ge=0)], 0),
    ],
)
def test_a_right_default_stays_as_it_is_written(kind: Any, default: Any) -> None:
    """The function gets it as before: a whole number as such."""

    def right(rng: object, *, k: kind = default) -> None: ...

    wanted = getattr(default, "default", default)
    found = declared(right).check({})["k"]
    assert (found, type(found)) == (wanted, type(wanted))


def test_a_broken_default_is_reported_with_its_file(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As other errors of a declaration; it takes nothing else down."""
    monkeypatch.setattr(registry, "_chosen", [tmp_path])
    text = "from batchsim import simulation\n@simulation(outputs={'x': float})\ndef f(rng, *, k: int = 'abc'): ..."
    (tmp_path / "bad.py").write_text(text)
    found = registry.everything()
    assert "DeclarationError: f: parameter k has the default 'abc'" in found.broken[str(tmp_path / "bad.py")]
    assert set(registry.BUILT_IN) <= set(found.found)


@pytest.mark.parametrize(
    "name", ["model_dump", "copy", "json", "dict", "schema", "model_config", "_x", "p_0", "__base__"]
)
def test_a_parameter_may_have_any_name(name: str) -> None:
    """Also one that pydantic's models have themselves; people and clients read it as it is."""
    places: dict[str, Any] = {}
    exec(f"def own(rng, *, {name}: float = 1.5, b: int = 2): ...", places)
    found = declared(places["own"])
    assert found.check({}) == {name: 1.5, "b": 2}
    assert found.check({name: 2}) == {name: 2.0, "b": 2}
    assert list(found.schema()["parameters"]["properties"]) == [name, "b"]
    assert planning.defaults({"parameters": {name: 2}, "sweep": {}}, found) == {"b": 2}
    with pytest.raises(InvalidInput, match=f"^{name} is 'a'") as refused:
        found.check({name: "a"})
    assert refused.value.field == name
    with pytest.raises(InvalidInput, match=f"^c is not a parameter of own; there are: {name}, b$"):
        found.check({"c": 1})


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        (float, Field(2.0, alias="lambda", gt=0, description="mean free path")),
        (Annotated[float, Field(alias="lambda", gt=0, description="mean free path")], 2.0),
        (Annotated[float, Field(gt=0)], Field(2.0, validation_alias="q", description="mean free path")),
        (float, Field(default_factory=lambda: 2.0, serialization_alias="q", gt=0, description="mean free path")),
    ],
)
def test_a_parameter_has_no_other_name(kind: Any, default: Any) -> None:
    """What pydantic's Field says besides holds."""

    def own(rng: object, *, lam: kind = default) -> None: ...

    found = declared(own)
    assert (found.check({}), found.check({"lam": 3})) == ({"lam": 2.0}, {"lam": 3.0})
    told = found.schema()["parameters"]
    assert {name: each["description"] for name, each in told["properties"].items()} == {"lam": "mean free path"}
    assert "required" not in told
    for wrong, said in (({"lam": 0}, "greater than 0"), ({"lambda": 1}, "there are: lam$"), ({"p_0": 1}, "are: lam$")):
        with pytest.raises(InvalidInput, match=said):
            found.check(wrong)


def test_an_infinite_default_is_valid_json() -> None:
    """As a text that may be given back; a limit that is none is left out."""

    def bounded(rng: object, *, k: Annotated[float, Field(ge=0, le=math.inf)] = math.nan, minimum: Any = 1) -> None: ...

    found = strict(json.dumps(declared(capped).schema()))["parameters"]["properties"]
    assert {name: each["default"] for name, each in found.items()} == {"cap": "inf", "floor": "-inf", "n": 1}
    with pytest.raises(DeclarationError, match="k has the default nan"):
        declared(bounded)
    bounded.__kwdefaults__["k"] = math.inf
    known = strict(json.dumps(declared(bounded).schema()))["parameters"]["properties"]
    assert known["k"] == {"default": "inf", "minimum": 0, "title": "K", "type": "number"}


@pytest.mark.parametrize("text", ["inf", "Infinity", "-inf", "nan"])
def test_who_declares_infinity_may_be_given_it(text: str) -> None:
    """As an option, in the form and over HTTP; it is recorded as JSON, and the job gets the number."""
    wanted = float(text)
    for given_ in (parse_values(text)[0], text, wanted):
        options = read_options({"simulation": "capped", "parameters": {"cap": given_}})
        fields = planning.fields(options, 1, declared(capped))
        assert repr(float(strict(json.dumps(fields["parameters"]))["cap"])) == repr(wanted)
        assert repr(declared(capped).check(fields["parameters"])["cap"]) == repr(wanted)


@pytest.mark.parametrize("value", [math.inf, "inf", math.nan])
def test_who_does_not_is_not(value: Any) -> None:
    """Neither a number with another default, nor what has no type, of which a text would stay one."""

    def usual(rng: object, *, k: float = 1.0, untyped=1.0) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(InvalidInput, match=r"k is .*: input should be a finite number"):
        declared(usual).check({"k": value})
    if not isinstance(value, str):
        for nested in (value, [value], {"a": [value]}):
            with pytest.raises(InvalidInput, match=r"untyped is .*: must be a finite number"):
                declared(usual).check({"untyped": nested})
    assert declared(usual).check({"untyped": {"a": [1.5, "inf"]}})["untyped"] == {"a": [1.5, "inf"]}


def test_without_a_type_an_infinite_default_says_it() -> None:
    """It is a float."""

    def untyped(rng: object, *, cap=math.inf) -> None: ...  # type: ignore[no-untyped-def]

    assert declared(untyped).check({"cap": "inf"}) == {"cap": math.inf}
    with pytest.raises(InvalidInput, match="cap is 'much'"):
        declared(untyped).check({"cap": "much"})


def test_a_sweep_over_infinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded as JSON; each job gets its number, and the column of results.csv holds numbers."""
    monkeypatch.setattr(registry, "find", lambda name: declared(capped))
    sweep = {"axes": {"cap": [1, math.inf, 2.5]}, "replications": 2}
    options = read_options({"simulation": "capped", "sweep": sweep})
    fields = planning.fields(options, 6, declared(capped))
    spec = BatchSpec.from_json(json.dumps(strict(BatchSpec(1, 6, 42, **fields).to_json())))
    assert [Jobs(spec).result(index)[1] for index in (1, 3, 4, 5)] == [(1.0,), (math.inf,), (math.inf,), (2.5,)]
    assert swept(spec)["cap"].at(np.arange(3)).to_pylist() == [1.0, math.inf, 2.5]


@given(JSON)
def test_everything_can_be_written_as_json(value: Any) -> None:
    """And what could be is not changed."""
    back = strict(json.dumps(as_json(value)))
    assert json.dumps(back).replace('"nan"', "NaN").replace('"inf"', "Infinity").replace(
        '"-inf"', "-Infinity"
    ) == json.dumps(value).replace('"nan"', "NaN").replace('"inf"', "Infinity").replace('"-inf"', "-Infinity")
