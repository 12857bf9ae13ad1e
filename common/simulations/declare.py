"""``@simulation``: how a function becomes something that batches can run.

A simulation is a function of a random generator and keyword parameters that returns a dict::

    @simulation(outputs={"price": float, "stderr": float})
    def european_call(rng: numpy.random.Generator, *, sigma: float = 0.2, paths: int = 10_000) -> dict: ...

What it declares is read from the signature once: names, types, defaults and limits of the parameters, by pydantic, so
``Annotated[float, Field(gt=0)]`` works as it does there.
"""

import hashlib
import inspect
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from common.errors import InvalidInput
from common.programs.program import Program
from common.rows import COLUMNS

F = TypeVar("F", bound=Callable[..., Any])
Check = Callable[[Mapping[str, Any]], None]
MARK = "__batchsim__"
OUTPUT_TYPES = (float, int, bool)
# JSON, which batch.json is, has neither NaN nor infinity.
CONFIG = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class DeclarationError(InvalidInput):
    """A function that cannot be a simulation; the message names the function and what to change."""


@dataclass(frozen=True)
class Simulation:
    """A function or a program with what it declares; ``outputs`` are its numbers, the columns of the job table."""

    name: str
    function: Callable[..., Any]
    outputs: Mapping[str, type]
    #: Hash of the source file: two machines that differ in it do not run the same simulation.
    version: str
    #: Where it comes from: "built in", a file, or a package.
    origin: str = ""
    #: Raises ValueError for parameters that do not go together.
    together: Check | None = None
    #: What is run instead of ``function``.
    program: Program | None = None
    #: The parameters, the text and the options of a program; a function has its own, and no options.
    model: type[BaseModel] | None = None
    text: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def parameters(self) -> type[BaseModel]:
        """The parameters as a pydantic model; of a function from the keyword-only arguments of the signature."""
        if self.model is not None:
            return self.model
        return model_of(self.name, self.fields())

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What the declared parameters are called, in their order."""
        return tuple(each.alias or name for name, each in self.parameters.model_fields.items())

    def fields(self) -> dict[str, Any]:
        """Of a function: each parameter's type and default, as :func:`model_of` takes them.

        Raises :class:`DeclarationError` for one that can be given without its name.
        """
        found = {}
        for parameter in list(inspect.signature(self.function, eval_str=True).parameters.values())[1:]:
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                raise DeclarationError(f"{self.name}: write a * before {parameter.name}: parameters are given by name")
            found[parameter.name] = _field(parameter)
        return found

    @property
    def description(self) -> str:
        """The first paragraph of its docstring, or what ``simulations.toml`` says."""
        text = self.text if self.program else inspect.getdoc(self.function) or ""
        return " ".join(text.split("\n\n")[0].split())

    def schema(self) -> dict[str, Any]:
        """What it is, for people and forms: name, description, outputs, and the parameters' JSON Schema.

        It can be written as JSON; a default that is not finite is a text there, ``"inf"``.
        """
        return {
            "name": self.name,
            "description": self.description,
            "outputs": {name: kind.__name__ for name, kind in self.outputs.items()},
            "parameters": as_json(self.parameters.model_json_schema()),
            "version": self.version,
            "origin": self.origin,
        }

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters with their defaults, of the declared types, which go together.

        Raises :class:`InvalidInput` naming the field.
        """
        found = self.check_each(values)
        if self.together is not None:
            try:
                self.together(found)
            except ValueError as error:
                words = re.findall(r"\w+", str(error))
                named = next((word for word in words if word in found), "parameters")
                raise InvalidInput(str(error), field=named) from None
        return found

    def check_each(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """As :meth:`check`, of each parameter by itself."""
        return self.by_name(self.read(values))

    def read(self, values: Mapping[str, Any]) -> BaseModel:
        """As :meth:`check_each`, but as :attr:`parameters`."""
        try:
            return self.parameters.model_validate(dict(values))
        except ValidationError as error:
            raise self._refusal(values, error) from None

    def by_name(self, found: BaseModel) -> dict[str, Any]:
        """The values of :attr:`parameters`, each as its type is: not a dump, in which a dataclass would be a dict."""
        declared = zip(self.names, (getattr(found, name) for name in type(found).model_fields), strict=True)
        return dict(declared) | (found.model_extra or {})

    def _refusal(self, values: Mapping[str, Any], error: ValidationError) -> InvalidInput:
        """What is wrong first."""
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])[:100] if first["loc"] else "parameters"
        within = ".".join([name, *map(str, first["loc"][1:])])[:200]
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = ", ".join(self.names) or "none"
            if within == name:
                return InvalidInput(f"{name} is not a parameter of {self.name}; there are: {known}", field=name)
            return InvalidInput(f"{within} is not a field of {name}", field=name)
        if first["type"] == "missing":
            return InvalidInput(f"{within} is missing: {self.name} has no default for it", field=name)
        reason = first["msg"].removeprefix("Value error, ")
        shown = within if _is_there(values, first["loc"]) else name
        return InvalidInput(f"{shown} is {first['input']!r:.80}: {reason[0].lower()}{reason[1:]}", field=name)


def simulation(*, outputs: Mapping[str, type], name: str = "", check: Check | None = None) -> Callable[[F], F]:
    """Declare a function as a simulation; ``outputs`` names its numeric results and their types.

    ``name`` is the function's own unless given. ``check`` is called with all parameters when a batch is submitted, and
    raises ValueError for what does not go together; the first parameter that its text names is the one to blame.
    Raises :class:`DeclarationError`.
    """

    def declare(function: F) -> F:
        called = name or function.__name__
        wrong = [out for out, kind in outputs.items() if kind not in OUTPUT_TYPES or not out.isidentifier()]
        if wrong:
            raise DeclarationError(f"{called}: output {wrong[0]!r} must be a name with the type float, int or bool")
        taken = [out for out in outputs if out in COLUMNS]
        if taken:
            raise DeclarationError(f"{called}: output {taken[0]!r} is a column that every batch has; name it otherwise")
        try:
            arguments = list(inspect.signature(function).parameters)
        except (TypeError, ValueError):
            # Some types of Python itself have none.
            arguments = []
        if not arguments:
            raise DeclarationError(f"{called}: its first argument must be the random generator")
        declared = Simulation(called, function, dict(outputs), _version(function), together=check)
        # So that a wrong signature is told where it is written, and not to everybody who asks what there is.
        _check_parameters(declared)
        setattr(function, MARK, declared)
        return function

    return declare


def model_of(name: str, fields: Mapping[str, tuple[Any, Any]], config: ConfigDict = CONFIG) -> type[BaseModel]:
    """A model of parameters of these names, each with its type and default as pydantic's ``create_model`` takes them.

    Their names are aliases of others: ``copy`` or ``model_dump`` would stand in the way of the model's own.
    """
    named: dict[str, Any] = {
        f"p_{number}": _called(each, *field_) for number, (each, field_) in enumerate(fields.items())
    }
    return create_model(name, __config__=config, **named)


def no_function(*_: object, **__: object) -> NoReturn:
    """What a program has in a function's place."""
    raise TypeError("this is a program, and no function")


def as_json(value: Any) -> Any:
    """The value with NaN and infinity, which JSON lacks, as texts, ``"inf"``, which a float parameter reads back."""
    if isinstance(value, dict):
        return {name: as_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _field(parameter: inspect.Parameter) -> tuple[Any, Any]:
    """The type and the default; without a type anything that JSON has."""
    kind, default = parameter.annotation, parameter.default
    untyped = kind is inspect.Parameter.empty
    usual = default.default if isinstance(default, FieldInfo) else default
    if isinstance(usual, float) and not math.isfinite(usual):
        # Whose default is infinite takes infinity, which is recorded as text; that reads back only with a type.
        kind = Annotated[float if untyped else kind, Field(allow_inf_nan=True)]
    elif untyped:
        kind = Annotated[Any, AfterValidator(_finite)]
    return kind, ... if default is inspect.Parameter.empty else default


def _called(name: str, kind: Any, default: Any) -> tuple[Any, Any]:
    """The type and the default under this name, whatever alias they have."""
    known = Field(alias=name, validation_alias=name, serialization_alias=name)
    if not isinstance(default, FieldInfo):
        return Annotated[kind, known], default
    # Within the type it comes before the name; where the default stands it would come after it.
    usual = default.default
    return Annotated[kind, default, known], ... if usual is PydanticUndefined else usual


def _is_there(values: Any, place: Sequence[Any]) -> bool:
    """Whether the place of an error is one of what was given: of several types that fit it names one, too."""
    for part in place:
        try:
            values = values[part]
        except (LookupError, TypeError):
            return False
    return True


def _finite(value: Any) -> Any:
    if as_json(value) != value:
        raise ValueError("must be a finite number")
    return value


def _check_parameters(declared: Simulation) -> None:
    """See that every parameter can be described to clients, and may be its default.

    Raises :class:`DeclarationError` that names it.
    """
    for name, field_ in declared.fields().items():
        try:
            one = model_of(declared.name, {name: field_}, CONFIG | {"validate_default": True})
            json.dumps(one.model_json_schema())
        except (PydanticUserError, TypeError, ValueError, NameError, RuntimeError) as error:
            raise DeclarationError(
                f"{declared.name}: parameter {name} cannot be described to clients; give it a type that JSON has, "
                f"such as float, int, str, bool or Literal ({str(error).splitlines()[0]})"
            ) from error
        (known,) = one.model_fields.values()
        if not known.is_required():
            _check_default(declared.name, name, one, known.get_default(call_default_factory=True))


def _check_default(simulation_name: str, name: str, one: type[BaseModel], default: Any) -> None:
    """``one`` is a model of this parameter alone, which checks its default."""
    try:
        ((_, value),) = one.model_validate({})
        # Of a client a text of digits is a number; a default comes to the function as it is written.
        reason = "a text is no number" if isinstance(default, str) and isinstance(value, int | float) else ""
    except ValidationError as error:
        text = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        reason = f"{text[0].lower()}{text[1:]}" + ("; or write its type as … | None" if default is None else "")
    if reason:
        raise DeclarationError(f"{simulation_name}: parameter {name} has the default {default!r:.80}: {reason}")


def _version(function: Callable[..., Any]) -> str:
    try:
        source = inspect.getsource(inspect.getmodule(function) or function)
    except (OSError, TypeError):
        source = repr(function)
    return hashlib.sha256(source.encode()).hexdigest()[:16]
