"""The Ising model of a magnet on a square lattice, whose energy and magnetisation are known exactly."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.simulations.declare import simulation

Size = Annotated[int, Field(ge=2, le=1_024, multiple_of=2, description="spins along each side; even")]
Temperature = Annotated[float, Field(ge=0.01, le=1_000_000, description="k·T/J; critical at 2/ln(1+√2) = 2.269")]
Sweeps = Annotated[int, Field(ge=1, le=1_000_000, description="sweeps that are measured, each updating every spin")]
BurnIn = Annotated[int, Field(ge=0, le=1_000_000, description="sweeps before them, away from the ordered start")]
Spins = NDArray[np.int8]


@simulation(outputs={"energy": float, "magnetisation": float})
def ising_2d(
    rng: np.random.Generator,
    *,
    size: Size = 16,
    temperature: Temperature = 2.0,
    sweeps: Sweeps = 100,
    burn_in: BurnIn = 50,
) -> dict[str, float]:
    """Energy and magnetisation of the two-dimensional Ising model without a field, on a torus.

    ``energy`` is the mean of −Σ s·s' over the bonds, per spin and in units of J; ``magnetisation`` the mean of |Σ s|
    per spin. All spins start up. With side 2 both bonds of a pair count, as the torus has them.

    Each sweep draws first the spins on the black squares of the checkerboard anew, then those on the white ones, from
    their conditional distribution (heat bath). Metropolis' rule would be wrong here: it always flips a spin whose
    neighbours cancel, so on a checkerboard a lattice of such spins flips for ever, is never reached from outside,
    and is missing in the means.

    References: L. Onsager, "Crystal Statistics I", Physical Review 65 (1944) 117–149; C. N. Yang, "The Spontaneous
    Magnetization of a Two-Dimensional Ising Model", Physical Review 85 (1952) 808–816; R. J. Glauber,
    "Time-Dependent Statistics of the Ising Model", Journal of Mathematical Physics 4 (1963) 294–307.
    """
    # The probability of up for the sums −4…4 of the neighbours.
    up = (1 + np.tanh(np.arange(-4, 5) / temperature)) / 2
    beside_black, beside_white = _neighbours(size, 0), _neighbours(size, 1)
    black = white = np.ones(size**2 // 2, dtype=np.int8)
    energy = magnetisation = 0
    for sweep in range(burn_in + sweeps):
        black = _drawn(rng, up, _sums(white, beside_black))
        sums = _sums(black, beside_white)
        white = _drawn(rng, up, sums)
        if sweep >= burn_in:
            # Every bond joins a white spin to a black one.
            energy -= int((white * sums).sum())
            magnetisation += abs(int(black.sum()) + int(white.sum()))
    spins = sweeps * size**2
    return {"energy": energy / spins, "magnetisation": magnetisation / spins}


def _neighbours(size: int, colour: int) -> NDArray[np.int64]:
    """Where the four neighbours of each square of a colour are among those of the other one, row by row."""
    row, column = np.indices((size, size))
    place = row * (size // 2) + column // 2
    squares = (row + column) % 2 == colour
    return np.stack([np.roll(place, shift, axis)[squares] for shift in (1, -1) for axis in (0, 1)])


def _sums(spins: Spins, places: NDArray[np.int64]) -> Spins:
    total: Spins = spins[places].sum(axis=0, dtype=np.int8)
    return total


def _drawn(rng: np.random.Generator, up: NDArray[np.float64], sums: Spins) -> Spins:
    return np.where(rng.random(sums.size) < up[sums + 4], np.int8(1), np.int8(-1))
