"""The price of a European option by Monte Carlo, where the exact price is known."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.simulations.declare import simulation

Price = Annotated[float, Field(ge=0.000001, le=1_000_000_000, description="in units of money")]
Sigma = Annotated[float, Field(ge=0, le=5, description="volatility per √year; 0.2 is 20 %")]
Rate = Annotated[float, Field(ge=-1, le=1, description="riskless interest per year, compounded continuously")]
Maturity = Annotated[float, Field(gt=0, le=100, description="years until the option expires")]
Paths = Annotated[int, Field(ge=2, le=10_000_000, description="independent normal draws, one path or pair each")]
Kind = Annotated[Literal["call", "put"], Field(description="the right to buy or to sell")]
Antithetic = Annotated[bool, Field(description="use each draw with both signs: twice the work, a smaller error")]


@simulation(outputs={"price": float, "stderr": float})
def european_option(
    rng: np.random.Generator,
    *,
    s0: Price = 100.0,
    strike: Price = 100.0,
    sigma: Sigma = 0.2,
    rate: Rate = 0.05,
    maturity: Maturity = 1.0,
    paths: Paths = 10_000,
    kind: Kind = "call",
    antithetic: Antithetic = False,
) -> dict[str, float]:
    """The present value of a European call or put on a stock that follows geometric Brownian motion.

    Under the riskless measure S(T) = s0·exp((rate − sigma²/2)·T + sigma·√T·Z); ``price`` is the mean of the
    discounted payoff, unbiased, and ``stderr`` its standard error, both in the units of ``s0``. The exact price is
    10.4506 with the defaults.

    References: F. Black, M. Scholes, "The Pricing of Options and Corporate Liabilities", Journal of Political
    Economy 81 (1973) 637–654; P. P. Boyle, "Options: A Monte Carlo approach", Journal of Financial Economics 4
    (1977) 323–338, which has the antithetic draws too.
    """

    def payoff(normal: NDArray[np.float64]) -> NDArray[np.float64]:
        final = s0 * np.exp((rate - sigma**2 / 2) * maturity + sigma * np.sqrt(maturity) * normal)
        gain: NDArray[np.float64] = final - strike if kind == "call" else strike - final
        return np.maximum(gain, 0.0)

    normal = rng.standard_normal(paths)
    # A pair is one sample: its two payoffs depend on each other, and their mean is what varies independently.
    sample = (payoff(normal) + payoff(-normal)) / 2 if antithetic else payoff(normal)
    discount = np.exp(-rate * maturity)
    return {
        "price": float(discount * sample.mean()),
        "stderr": float(discount * sample.std(ddof=1) / np.sqrt(paths)),
    }
