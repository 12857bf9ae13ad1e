"""Sweeps: which parameters job *i* has, in closed form, so that ten million jobs are a few lines in Redis.

The jobs of a point are neighbours: job ``i`` is replication ``(i - 1) % replications`` of point
``(i - 1) // replications``. The points of a grid count like an odometer: the last axis moves fastest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any, Self

from common.errors import InvalidInput
from common.rows import COLUMNS
from common.settings import MAX_JOBS
from common.simulations.declare import Simulation
from common.spelling import MOST_VALUES

MODES = ("grid", "zip", "points")


@dataclass(frozen=True)
class Sweep:
    """``grid``: every combination of the axes' values; ``zip``: their first values, their second, …; or ``points``.

    With ``common_random_numbers`` the same replication of each point has the same random stream.
    """

    mode: str
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    points: Sequence[Mapping[str, Any]] = ()
    replications: int = 1
    common_random_numbers: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read and check what :meth:`to_dict` gives, or a user wrote. Raises :class:`InvalidInput`."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise InvalidInput(
                f"sweep: {unknown[0]} is not a field of it; there are {', '.join(cls.__dataclass_fields__)}, such as "
                '{"axes": {"sigma": [0.1, 0.2]}, "replications": 1000}',
                field="sweep",
            )
        count = values.get("replications")
        # JSON has one kind of number: 1000.0 is a thousand.
        whole = {"replications": int(count)} if isinstance(count, float) and count.is_integer() else {}
        found = cls(**{"mode": "points" if "points" in values else "grid", **values, **whole})
        found._check()
        return found

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; what is not used is left out."""
        content = {"points": list(self.points)} if self.mode == "points" else {"axes": dict(self.axes)}
        return {
            "mode": self.mode,
            **content,
            "replications": self.replications,
            "common_random_numbers": self.common_random_numbers,
        }

    @property
    def size(self) -> int:
        """Number of points."""
        if self.mode == "points":
            return len(self.points)
        sizes = [len(values) for values in self.axes.values()]
        return prod(sizes) if self.mode == "grid" else min(sizes)

    @property
    def jobs(self) -> int:
        """Number of jobs."""
        return self.size * self.replications

    def point(self, index: int) -> int:
        """The point, from 0, of job ``index``, from 1."""
        return (index - 1) // self.replications

    def stream(self, index: int) -> int:
        """The random stream of job ``index``."""
        return (index - 1) % self.replications + 1 if self.common_random_numbers else index

    def parameters(self, point: int) -> dict[str, Any]:
        """The parameters that distinguish a point."""
        if self.mode == "points":
            return dict(self.points[point])
        if self.mode == "zip":
            return {name: values[point] for name, values in self.axes.items()}
        found = {}
        for name, values in reversed(list(self.axes.items())):
            point, place = divmod(point, len(values))
            found[name] = values[place]
        return dict(reversed(found.items()))

    def check(self, simulation: Simulation, fixed: Mapping[str, Any]) -> None:
        """See that every value fits its parameter, and the values of each point one another.

        A grid of more than 100,000 points is not written out for that; a point that does not fit itself then fails its
        jobs. Raises :class:`InvalidInput` that names the parameter.
        """
        both = sorted(set(fixed) & self.names())
        if both:
            raise InvalidInput(f"{both[0]} is given and swept; give it once", field=both[0])
        taken = sorted(self.names() & {*COLUMNS, *simulation.outputs})
        if taken:
            raise InvalidInput(
                f"{taken[0]} cannot be swept: results.csv has another column of that name; rename the parameter",
                field=taken[0],
            )
        if self.mode == "points" or (simulation.together is not None and self.size <= MOST_VALUES):
            for point in all_points(self):
                simulation.check({**fixed, **point})
            return
        first = {name: values[0] for name, values in self.axes.items()}
        for name, values in self.axes.items():
            for value in values:
                simulation.check_each({**fixed, **first, name: value})

    def names(self) -> set[str]:
        """The parameters that are swept."""
        return {name for point in self.points for name in point} if self.mode == "points" else set(self.axes)

    def _check(self) -> None:
        if self.mode not in MODES:
            raise InvalidInput(f"sweep: mode is {self.mode!r}; it must be one of {', '.join(MODES)}", field="sweep")
        whole = isinstance(self.replications, int) and not isinstance(self.replications, bool)
        if not whole or not 1 <= self.replications <= MAX_JOBS:
            raise InvalidInput(
                f"replications is {self.replications}; it must be from 1 to {MAX_JOBS:_}", field="replications"
            )
        if not isinstance(self.axes, Mapping) or (self.mode == "points") == bool(self.axes):
            raise InvalidInput(
                'sweep: needs axes, such as {"sigma": [0.1, 0.2]}, or points, a list of objects', field="sweep"
            )
        if not isinstance(self.common_random_numbers, bool):
            raise InvalidInput("sweep: common_random_numbers must be true or false", field="sweep")
        self._check_values()
        if self.jobs > MAX_JOBS:
            raise InvalidInput(f"sweep: {self.jobs:_} jobs are more than {MAX_JOBS:_}", field="sweep")

    def _check_values(self) -> None:
        lists = [self.points] if self.mode == "points" else list(self.axes.values())
        names = ["points"] if self.mode == "points" else list(self.axes)
        for name, values in zip(names, lists, strict=True):
            if not isinstance(values, list | tuple) or not values:
                raise InvalidInput(f"{name}: a sweep needs a list of at least one value", field=name)
            if len(values) > MOST_VALUES:
                raise InvalidInput(f"{name}: more than {MOST_VALUES:_} values", field=name)
        if self.mode == "zip" and len({len(values) for values in lists}) > 1:
            raise InvalidInput("sweep: zip needs lists of equal length", field="sweep")
        if self.mode == "points" and not all(isinstance(point, dict) for point in self.points):
            raise InvalidInput("points: each must be an object of parameters", field="points")


def all_points(sweep: Sweep) -> list[dict[str, Any]]:
    """Every point's parameters, in order; as :meth:`Sweep.parameters`, for those that need them all."""
    if sweep.mode != "grid":
        return [sweep.parameters(point) for point in range(sweep.size)]
    return [dict(zip(sweep.axes, values, strict=True)) for values in product(*sweep.axes.values())]
