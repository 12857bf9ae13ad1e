"""The processes of the system: api, worker, and local, which runs both on one machine."""
