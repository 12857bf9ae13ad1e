"""The queue against Erlang's formulas; see known_answers for the confidence."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from common.errors import InvalidInput
from common.simulations import mmc_queue as module
from common.simulations.mmc_queue import mmc_queue
from tests.unit.known_answers import Results, agrees, declared, run

CASES = [(0.7, 1.0, 1), (1.4, 1.0, 2), (8.0, 2.0, 5)]


class Answer(NamedTuple):
    """The means in the steady state."""

    mean_wait: float
    utilisation: float
    p_wait: float


def erlang(arrival_rate: float, service_rate: float, servers: int) -> Answer:
    """Erlang's C, through the recursion of his B (Erlang, 1917)."""
    load = arrival_rate / service_rate
    p_wait = erlang_c(load, servers)
    return Answer(p_wait / (servers * service_rate - arrival_rate), load / servers, p_wait)


def erlang_b(load: float, servers: int) -> float:
    """The part of the customers lost if there were no queue."""
    lost = 1.0
    for k in range(1, servers + 1):
        lost = load * lost / (k + load * lost)
    return lost


def erlang_c(load: float, servers: int) -> float:
    """The part of the customers that wait."""
    lost = erlang_b(load, servers)
    return lost / (1 - load / servers * (1 - lost))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"M/M/{case[2]}")
def case(request: pytest.FixtureRequest) -> tuple[tuple[float, float, int], Results]:
    """150 jobs of 5000 customers each after 1000, of which the start empty is long forgotten."""
    rates = dict(zip(("arrival_rate", "service_rate", "servers"), request.param, strict=True))
    return request.param, run(mmc_queue, 150, **rates, customers=5_000, warm_up=1_000)


def test_formula_gives_known_values() -> None:
    """With one server p_wait is ρ; with two it is 2ρ²/(1 + ρ)."""
    assert erlang_c(0.7, 1) == pytest.approx(0.7)
    assert erlang_c(1.4, 2) == pytest.approx(2 * 0.49 / 1.7)


@pytest.mark.parametrize("output", Answer._fields)
def test_means_are_erlangs(case: Any, output: str) -> None:
    """A false alarm of one of the nine has the probability 9e-6 (150 jobs)."""
    rates, jobs = case
    assert agrees(jobs[output], getattr(erlang(*rates), output))


@pytest.mark.parametrize("output", Answer._fields)
@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_service_rate_off_by_3_percent_is_noticed(case: Any, output: str, factor: float) -> None:
    """In each of the three outputs, whichever the number of servers."""
    (arrival, service, servers), jobs = case
    assert not agrees(jobs[output], getattr(erlang(arrival, service * factor, servers), output))


def test_wrong_formulas_are_noticed(case: Any) -> None:
    """The time in the system, Erlang's B, and M/D/1's half of the wait are not what is asked."""
    (arrival, service, servers), jobs = case
    right = erlang(arrival, service, servers)
    assert not agrees(jobs["mean_wait"], right.mean_wait + 1 / service)
    assert not agrees(jobs["mean_wait"], right.mean_wait / 2)
    assert not agrees(jobs["p_wait"], erlang_b(arrival / service, servers))
    assert not agrees(jobs["utilisation"], 1 - right.utilisation)


def test_forgotten_warm_up_is_noticed() -> None:
    """The first 50 customers of an empty queue wait less: the check needs the warm-up to pass."""
    cold = run(mmc_queue, 2_000, arrival_rate=0.7, servers=1, customers=50, warm_up=0)
    warm = run(mmc_queue, 2_000, arrival_rate=0.7, servers=1, customers=50, warm_up=300)
    assert not agrees(cold["mean_wait"], erlang(0.7, 1, 1).mean_wait)
    assert agrees(warm["mean_wait"], erlang(0.7, 1, 1).mean_wait)


def literal_waits(arrivals: list[float], services: list[float], servers: int) -> list[float]:
    """Kiefer and Wolfowitz's recursion as they wrote it: the sorted vector of the servers' work."""
    work, waits = [0.0] * servers, []
    gaps = [*np.diff(arrivals).tolist(), 0.0]
    for service, gap in zip(services, gaps, strict=True):
        waits.append(work[0])
        work[0] += service
        work = sorted(max(left - gap, 0.0) for left in work)
    return waits


@pytest.mark.parametrize("servers", [1, 2, 3, 8])
def test_waits_are_those_of_the_recursion(servers: int) -> None:
    """Customer by customer, the vectorised one of a single server too; who does not wait has exactly 0."""
    rng = np.random.default_rng(1)
    arrivals = np.cumsum(rng.exponential(1 / (0.9 * servers), 3_000))
    services = rng.exponential(1.0, 3_000)
    expected = np.array(literal_waits(arrivals.tolist(), services.tolist(), servers))
    several = module._waits_of_many(arrivals, services, servers)
    found = module._waits_of_one(arrivals, services) if servers == 1 else several
    for waits in (found, several):
        assert np.allclose(waits, expected, rtol=0, atol=1e-8)
        assert np.array_equal(waits > 0, expected > 1e-12)


@pytest.mark.parametrize(("arrival_rate", "service_rate", "servers"), [(1.0, 1.0, 1), (2.0, 1.0, 2), (9.0, 0.1, 3)])
def test_unstable_queue_is_refused(arrival_rate: float, service_rate: float, servers: int) -> None:
    """The message names what to change; just below the limit it runs."""
    rng = np.random.default_rng(1)
    function = declared(mmc_queue).function
    with pytest.raises(ValueError, match=r"arrival_rate .* servers \* service_rate"):
        function(rng, arrival_rate=arrival_rate, service_rate=service_rate, servers=servers)
    given = {"arrival_rate": arrival_rate, "service_rate": service_rate, "servers": servers}
    with pytest.raises(InvalidInput, match="grows without end") as refused:
        declared(mmc_queue).check(given)
    assert refused.value.field == "arrival_rate"
    stable = service_rate * servers * 0.999
    assert function(rng, arrival_rate=stable, service_rate=service_rate, servers=servers)["mean_wait"] >= 0


def test_a_free_server_for_everybody() -> None:
    """With far more servers than work nobody waits."""
    jobs = run(mmc_queue, 5, arrival_rate=0.1, servers=50, customers=200, warm_up=0)
    assert not jobs["p_wait"].any()
    assert not jobs["mean_wait"].any()
    assert np.all((jobs["utilisation"] >= 0) & (jobs["utilisation"] < 0.05))
