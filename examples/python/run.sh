#!/bin/sh -e
# The price of a call for eleven volatilities, 100 jobs each.
cd "$(dirname "$0")"
batchsim run --simulation european_call --param sigma=0.1:0.5:0.04 --replications 100 --seed 42
python ../plot.py outputs sigma price call.png
