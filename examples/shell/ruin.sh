#!/bin/sh
#SBATCH --job-name=ruin
#SBATCH --time=1:00
#SBATCH --mem=200M
# Gambler's ruin: who has 10 of 20 coins, and wins a round with probability P, loses them all how often, and how soon?
# A job plays 20 games. JOB_SEED31 fits every awk: some cut a larger seed off, and then all jobs are the same.
awk -v seed="$JOB_SEED31" -v p="$PARAM_P" '
BEGIN {
    srand(seed)
    for (game = 0; game < 20; game++) {
        for (coins = 10; coins > 0 && coins < 20; rounds++) coins += rand() < p ? 1 : -1
        ruined += coins == 0
    }
    printf "{\"ruined\": %.17g, \"rounds\": %.17g}\n", ruined / 20, rounds / 20
}'
