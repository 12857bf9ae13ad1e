"""The simulations that the system can run: ours, a module each, and how others' are declared and found."""
