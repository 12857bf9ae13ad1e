"""``@simulation``: how a function becomes something that batches can run.

A simulation is a function of a random generator and keyword parameters that returns a dict::

    @simulation(outputs={"price": float, "stderr": float})
    def european_call(rng: numpy.random.Generator, *, sigma: float = 0.2, paths: int = 10_000) -> dict: ...

What it declares is read from the signature once: names, types, defaults and limits of the parameters, by pydantic, so
``Annotated[float, Field(gt=0)]`` works as it does there.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from common.errors import InvalidInput

F = TypeVar("F", bound=Callable[..., Any])
MARK = "__batchsim__"
OUTPUT_TYPES = (float, int, bool)


class DeclarationError(InvalidInput):
    """A function that cannot be a simulation; the message names the function and what to change."""


@dataclass(frozen=True)
class Simulation:
    """A function with what it declares; ``outputs`` are its numeric results, the columns of the job table."""

    name: str
    function: Callable[..., Any]
    outputs: Mapping[str, type]
    #: Hash of the source file: two machines that differ in it do not run the same simulation.
    version: str
    #: Where it comes from: "built in", a file, or a package.
    origin: str = ""

    @cached_property
    def parameters(self) -> type[BaseModel]:
        """The parameters as a pydantic model, from the keyword-only arguments of the signature."""
        signature = inspect.signature(self.function, eval_str=True)
        fields: dict[str, Any] = {}
        for parameter in list(signature.parameters.values())[1:]:
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                raise DeclarationError(f"{self.name}: write a * before {parameter.name}: parameters are given by name")
            kind = Any if parameter.annotation is inspect.Parameter.empty else parameter.annotation
            fields[parameter.name] = (kind, ... if parameter.default is inspect.Parameter.empty else parameter.default)
        # JSON, which batch.json is, has neither NaN nor infinity.
        config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)
        return create_model(self.name, __config__=config, **fields)

    @property
    def description(self) -> str:
        """The first paragraph of its docstring."""
        return " ".join((inspect.getdoc(self.function) or "").split("\n\n")[0].split())

    def schema(self) -> dict[str, Any]:
        """What it is, for people and forms: name, description, outputs, and the parameters' JSON Schema."""
        return {
            "name": self.name,
            "description": self.description,
            "outputs": {name: kind.__name__ for name, kind in self.outputs.items()},
            "parameters": self.parameters.model_json_schema(),
            "version": self.version,
            "origin": self.origin,
        }

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters with their defaults, of the declared types. Raises :class:`InvalidInput` naming the field."""
        try:
            return self.parameters.model_validate(dict(values)).model_dump()
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0])[:100] if first["loc"] else "parameters"
            if first["type"] == "extra_forbidden":
                known = ", ".join(self.parameters.model_fields) or "none"
                raise InvalidInput(
                    f"{name} is not a parameter of {self.name}; there are: {known}", field=name
                ) from None
            if first["type"] == "missing":
                raise InvalidInput(f"{name} is missing: {self.name} has no default for it", field=name) from None
            reason = first["msg"].removeprefix("Value error, ")
            raise InvalidInput(
                f"{name} is {first['input']!r:.80}: {reason[0].lower()}{reason[1:]}", field=name
            ) from None


def simulation(*, outputs: Mapping[str, type], name: str = "") -> Callable[[F], F]:
    """Declare a function as a simulation; ``outputs`` names its numeric results and their types.

    ``name`` is the function's own unless given. Raises :class:`DeclarationError`.
    """

    def declare(function: F) -> F:
        called = name or function.__name__
        wrong = [out for out, kind in outputs.items() if kind not in OUTPUT_TYPES or not out.isidentifier()]
        if wrong:
            raise DeclarationError(f"{called}: output {wrong[0]!r} must be a name with the type float, int or bool")
        try:
            arguments = list(inspect.signature(function).parameters)
        except (TypeError, ValueError):
            # Some types of Python itself have none.
            arguments = []
        if not arguments:
            raise DeclarationError(f"{called}: its first argument must be the random generator")
        declared = Simulation(called, function, dict(outputs), _version(function))
        declared.parameters  # noqa: B018 - so that a wrong signature is told where it is written
        setattr(function, MARK, declared)
        return function

    return declare


def _version(function: Callable[..., Any]) -> str:
    try:
        source = inspect.getsource(inspect.getmodule(function) or function)
    except (OSError, TypeError):
        source = repr(function)
    return hashlib.sha256(source.encode()).hexdigest()[:16]
