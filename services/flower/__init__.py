"""Flower, the view of the queue for experts."""
