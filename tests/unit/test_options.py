"""The options of a batch: every field takes its good values, and names itself when it gets a bad one."""

from typing import Any

import pytest

from common.batch import BatchSpec
from common.errors import InvalidInput
from common.options import DEFAULTS, MOST_DEPENDENCIES, Options, read_options

GOOD: dict[str, list[Any]] = {
    "simulation": ["random_numbers", "faulty", "one of my own"],
    "parameters": [{}, {"raises": 0.5, "x": -1}, {"a": "text", "b": [1, 2], "c": None}],
    "sweep": [{}, {"axes": {"raises": [0.1, 0.2]}, "replications": 10}],
    "until": ["", "ci_halfwidth(mean) < 0.1"],
    "time_limit_seconds": [0, 0.001, 60, 30 * 86400],
    "memory_limit_mb": [0, 1, 2**22],
    "retries": [0, 1, 100],
    "retry_delay_seconds": [0, 0.5, 3600],
    "crash_limit": [1, 100],
    "max_fails": [None, 0, 10, "10", "5%", "0.5%", "100%"],
    "throttle": [0, 1, 1_000_000],
    "priority": [-100, 0, 100],
    "partition": ["default", "gpu-2", "a_b", "0", "a" * 32],
    "dependency": ["", "afterok:7", "afterok:7:8,afterany:9", " aftercorr:1 , afternotok:2 ", [["afterok", 3]], ()],
    "kill_on_invalid_dependency": [True, False],
    "hold": [True, False],
    "output_mode": ["files", "packed"],
}
BAD: dict[str, list[Any]] = {
    "simulation": ["a" * 101, 5, None],
    "parameters": [[], "x", None],
    "sweep": [[], "x", None],
    "until": [5, None, "x" * 201],
    "time_limit_seconds": [-1, 30 * 86400 + 1, "soon", float("nan"), float("inf"), None],
    "memory_limit_mb": [-1, 1.5, 2**22 + 1, "much"],
    "retries": [-1, 101, 0.5, "x"],
    "retry_delay_seconds": [-0.1, 3601, float("nan"), "x"],
    "crash_limit": [0, 101, "x"],
    "max_fails": [-1, "-1", "5 %", "%", "1e3", True, 1.5, "1234567890", [], "٣"],
    "throttle": [-1, 1_000_001, "x"],
    "priority": [-101, 101, 0.5],
    "partition": ["", "GPU", "-a", "a b", "a,b", "a" * 33, 5, "a\n"],
    "dependency": ["afterok", "afterok:", "before:1", "afterok:x", "afterok:-1", "afterok:1:", "afterok:²",
                   "afterok:123456789012", ",".join(["afterok:1"] * (MOST_DEPENDENCIES + 1)), 5],
    "kill_on_invalid_dependency": ["perhaps", 2],
    "hold": ["perhaps", None],
    "output_mode": ["zip", "", None],
}  # fmt: skip


def test_every_field_is_in_the_tables() -> None:
    """A new option gets its good and bad values here, and its place in the specification."""
    assert set(GOOD) == set(BAD) == set(Options.model_fields)
    assert set(Options.model_fields) <= set(BatchSpec.__dataclass_fields__)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_good_value(name: str, value: object) -> None:
    """It is taken."""
    assert hasattr(read_options({name: value}), name)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_bad_value_names_the_field(name: str, value: object) -> None:
    """In the error's field and at the start of its message, in one line."""
    with pytest.raises(InvalidInput) as caught:
        read_options({name: value})
    assert caught.value.field == name
    assert caught.value.message.startswith(f"{name} is ")
    assert "\n" not in caught.value.message


def test_an_unknown_field_is_named() -> None:
    """A slip of the pen is no silent default."""
    with pytest.raises(InvalidInput, match="retires is not a field") as caught:
        read_options({"retires": 3})
    assert caught.value.field == "retires"


def test_defaults_change_nothing() -> None:
    """A batch without options is what it was before there were any."""
    assert read_options({}) == DEFAULTS
    spec, given = BatchSpec(1, 1, 1), DEFAULTS.model_dump()
    assert {name: getattr(spec, name) for name in given} == given


def test_dependencies_as_slurm_writes_them() -> None:
    """Several ids of one kind, several kinds."""
    found = read_options({"dependency": "afterok:7:8,afterany:9"}).dependency
    assert found == (("afterok", 7), ("afterok", 8), ("afterany", 9))


@pytest.mark.parametrize("kind", ["before", "", "AfterOk"])
def test_a_dependency_in_parts_is_checked_too(kind: str) -> None:
    """Also when it comes as pairs, its kind is one of the four."""
    with pytest.raises(InvalidInput) as caught:
        read_options({"dependency": [[kind, 1]]})
    assert caught.value.field == "dependency"
