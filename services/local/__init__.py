"""The embedded form: a private Redis, a worker, and if asked API and Flower, under one supervisor."""
