"""Programs as simulations: what is started for each job, with what, and what becomes of what it prints."""
