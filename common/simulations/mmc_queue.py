"""A queue with Poisson arrivals and exponential service at several servers: M/M/c, first come, first served."""

import heapq
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.simulations.declare import simulation

Rate = Annotated[float, Field(ge=0.000001, le=1_000_000, description="per unit of time")]
Servers = Annotated[int, Field(ge=1, le=10_000, description="servers that work in parallel")]
Customers = Annotated[int, Field(ge=2, le=1_000_000, description="customers that are measured")]
WarmUp = Annotated[int, Field(ge=0, le=1_000_000, description="customers before them, while the queue fills")]
Times = NDArray[np.float64]


def stable(parameters: Mapping[str, Any]) -> None:
    """The servers can do what arrives. Raises ValueError."""
    most = parameters["servers"] * parameters["service_rate"]
    if parameters["arrival_rate"] >= most:
        raise ValueError(
            f"arrival_rate is {parameters['arrival_rate']}: it must be below servers * service_rate, {most}, "
            "or the queue grows without end"
        )


@simulation(outputs={"mean_wait": float, "utilisation": float, "p_wait": float}, check=stable)
def mmc_queue(
    rng: np.random.Generator,
    *,
    arrival_rate: Rate = 1.6,
    service_rate: Rate = 1.0,
    servers: Servers = 2,
    customers: Customers = 2_000,
    warm_up: WarmUp = 500,
) -> dict[str, float]:
    """How long customers of an M/M/c queue wait, and how busy its servers are.

    ``mean_wait`` is the mean time in the queue without the service, ``p_wait`` the part of the customers that wait
    at all, and ``utilisation`` the part of the servers' time in work, from the first measured arrival to the last.
    The queue starts empty; after a warm-up that is long against ρ/(1−√ρ)² customers, 72 with the defaults, the three
    have the means of Erlang C and ρ = arrival_rate/(servers·service_rate). Raises ValueError if ρ ≥ 1.

    References: A. K. Erlang, "Solution of some problems in the theory of probabilities of significance in automatic
    telephone exchanges", Elektroteknikeren 13 (1917) 5–13; D. V. Lindley, "The theory of queues with a single
    server", Mathematical Proceedings of the Cambridge Philosophical Society 48 (1952) 277–289; J. Kiefer,
    J. Wolfowitz, "On the theory of queues with many servers", Transactions of the AMS 78 (1955) 1–18.
    """
    stable({"arrival_rate": arrival_rate, "service_rate": service_rate, "servers": servers})
    count = warm_up + customers
    arrivals = np.cumsum(rng.exponential(1 / arrival_rate, count))
    services = rng.exponential(1 / service_rate, count)
    waits = _waits_of_one(arrivals, services) if servers == 1 else _waits_of_many(arrivals, services, servers)
    measured = waits[warm_up:]
    first, last = arrivals[warm_up], arrivals[-1]
    begun = arrivals + waits
    worked = np.minimum(begun + services, last) - np.maximum(begun, first)
    return {
        "mean_wait": float(measured.mean()),
        "utilisation": float(np.maximum(worked, 0).sum() / (servers * (last - first))),
        "p_wait": float(np.mean(measured > 0)),
    }


def _waits_of_one(arrivals: Times, services: Times) -> Times:
    """Lindley's W(n+1) = max(0, W(n) + S(n) − A(n)), as a sum minus its running minimum.

    So a customer that does not wait has exactly 0, whatever the rounding of the sum.
    """
    sums = np.concatenate(([0.0], np.cumsum(services[:-1] - np.diff(arrivals))))
    return sums - np.minimum.accumulate(sums)


def _waits_of_many(arrivals: Times, services: Times, servers: int) -> Times:
    """Kiefer and Wolfowitz's recursion: each customer takes the server that is free first."""
    free = [0.0] * servers
    waits = []
    for arrival, service in zip(arrivals.tolist(), services.tolist(), strict=True):
        begun = max(arrival, free[0])
        heapq.heapreplace(free, begun + service)
        waits.append(begun - arrival)
    return np.array(waits)
