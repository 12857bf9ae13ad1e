"""The worker: a Celery process whose children run the jobs."""
