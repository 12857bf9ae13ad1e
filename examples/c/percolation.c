/* Site percolation on a square lattice: is there a path of open sites from the top row to the bottom row?
 *
 *     percolation SEED SIZE P
 *
 * Prints one line of JSON: whether the lattice is crossed, and the largest cluster's part of the sites.
 * Clusters by union-find (Hoshen and Kopelman, Phys. Rev. B 14, 3438, 1976, count them in one pass like this). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t state;

/* splitmix64 (Steele, Lea and Flood, OOPSLA 2014). */
static double uniform(void) {
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
}

static int *parent;

static int root(int site) {
    while (parent[site] != site) site = parent[site] = parent[parent[site]];
    return site;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: percolation SEED SIZE P\n");
        return 2;
    }
    state = strtoull(argv[1], NULL, 10);
    int size = atoi(argv[2]), top = size * size, bottom = top + 1, largest = 0;
    double p = atof(argv[3]);
    if (size < 1 || size > 10000 || !(p >= 0 && p <= 1)) {
        fprintf(stderr, "SIZE must be from 1 to 10000 and P from 0 to 1\n");
        return 2;
    }
    parent = malloc((top + 2) * sizeof *parent);
    char *open = malloc(top);
    int *count = calloc(top + 2, sizeof *count);
    if (!parent || !open || !count) return 1;
    for (int site = 0; site < top + 2; site++) parent[site] = site;
    for (int site = 0; site < top; site++) {
        open[site] = uniform() < p;
        if (!open[site]) continue;
        if (site % size && open[site - 1]) parent[root(site)] = root(site - 1);
        if (site >= size && open[site - size]) parent[root(site)] = root(site - size);
    }
    for (int site = 0; site < top; site++)
        if (open[site] && ++count[root(site)] > largest) largest = count[root(site)];
    for (int column = 0; column < size; column++) {
        if (open[column]) parent[root(column)] = root(top);
        if (open[top - size + column]) parent[root(top - size + column)] = root(bottom);
    }
    printf("{\"crossed\": %d, \"largest\": %.17g}\n", root(top) == root(bottom), (double)largest / top);
    return 0;
}
