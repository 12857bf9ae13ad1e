"""The embedded form: a private Redis, a worker, and if asked the API and Flower, under one supervisor on one machine."""
