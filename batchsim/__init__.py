"""What users import: ``from batchsim import simulation``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.simulations.declare import simulation

__all__ = ["simulation"]


def __getattr__(name: str) -> Any:
    # Only when it is asked for: the command line is not ready for Ctrl-C while this package is imported.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from common.simulations import declare

    return declare.simulation
