"""The simulations that the system can run."""
