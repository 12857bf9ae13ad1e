"""The tests; `make test` runs all that this machine can run."""
