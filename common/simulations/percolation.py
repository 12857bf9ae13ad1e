"""Site percolation on a square lattice: whether there is a way through from top to bottom."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.simulations.declare import simulation

Size = Annotated[int, Field(ge=1, le=2_048, description="sites along each side")]
Probability = Annotated[float, Field(ge=0, le=1, description="probability of a site to be open; critical at 0.592746")]
Labels = NDArray[np.int64]


@simulation(outputs={"spans": int, "largest_cluster": float})
def percolation(rng: np.random.Generator, *, size: Size = 64, p: Probability = 0.592746) -> dict[str, float]:
    """Whether the open sites of a square lattice connect its top row to its bottom row.

    Each site is open with the probability ``p`` independently; open sites are connected to the open ones of their
    four neighbours, without wrapping around. ``spans`` is 1 if a cluster touches the top and the bottom row, else 0;
    ``largest_cluster`` is the size of the largest cluster as a part of all sites.

    References: S. R. Broadbent, J. M. Hammersley, "Percolation processes I", Mathematical Proceedings of the
    Cambridge Philosophical Society 53 (1957) 629–641; M. E. J. Newman, R. M. Ziff, "Efficient Monte Carlo algorithm
    and high-precision results for percolation", Physical Review Letters 85 (2000) 4104–4107 (the threshold).
    """
    sites = rng.random((size, size)) < p
    labels = _labels(sites)
    top, bottom = labels[0][sites[0]], labels[-1][sites[-1]]
    counts = np.bincount(labels[sites], minlength=1)
    return {
        "spans": int(np.intersect1d(top, bottom).size > 0),
        "largest_cluster": float(counts.max() / sites.size),
    }


def _labels(sites: NDArray[np.bool_]) -> Labels:
    """Each open site's cluster, named by its first site; closed sites are clusters of their own.

    All bonds hook the larger of two names onto the smaller one at once, and each chain of names is shortened to its
    end; repeated until no bond joins two names (Y. Shiloach, U. Vishkin, "An O(log n) parallel connectivity
    algorithm", Journal of Algorithms 3 (1982) 57–67).
    """
    index = np.arange(sites.size).reshape(sites.shape)
    across, down = sites[:, :-1] & sites[:, 1:], sites[:-1] & sites[1:]
    one = np.concatenate((index[:, :-1][across], index[:-1][down]))
    other = np.concatenate((index[:, 1:][across], index[1:][down]))
    parent = index.ravel().copy()
    while one.size:
        # Where several bonds hook the same name any one of them will do: the next rounds bring the others.
        parent[np.maximum(one, other)] = np.minimum(one, other)
        while not np.array_equal(grandparent := parent[parent], parent):
            parent = grandparent
        one, other = parent[one], parent[other]
        differ = one != other
        one, other = one[differ], other[differ]
    return parent.reshape(sites.shape)
