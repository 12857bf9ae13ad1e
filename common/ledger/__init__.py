"""The ledger: what is to be done, what is being done and what is done, in Redis; the only room that imports redis.

Celery carries messages, but the ledger is the truth. State moves through one Lua script per transition (``scripts/``).
"""

from common.ledger.connection import Connection

__all__ = ["Connection"]
