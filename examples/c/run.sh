#!/bin/sh -e
# How often a lattice of 64 x 64 sites is crossed, for eleven probabilities that a site is open, 100 lattices each.
cd "$(dirname "$0")"
make --silent percolation
batchsim run --param p=0.54:0.64:0.01 --replications 100 --outputs crossed,largest --seed 42 -- \
    ./percolation {seed} 64 {p}
python ../plot.py outputs p crossed percolation.png
