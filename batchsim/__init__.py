"""What users import: ``from batchsim import simulation``."""

from common.simulations.declare import simulation

__all__ = ["simulation"]
