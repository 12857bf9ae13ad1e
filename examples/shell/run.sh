#!/bin/sh -e
# Gambler's ruin for eleven probabilities, 20 jobs each.
cd "$(dirname "$0")"
batchsim run --script ruin.sh --param p=0.40:0.60:0.02 --replications 20 --outputs ruined,rounds --seed 42
python ../plot.py outputs p ruined ruin.png
