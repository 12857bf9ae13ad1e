"""Every key of the ledger: its type, who writes it, how long it lives.

One prefix, so that queue and ledger can share a Redis database. The Lua scripts build a batch's keys from the same
names, since which batch a claim serves is decided inside the script. Comments write ``bs:`` for the prefix.
"""

# One more whenever a key's type or meaning changes. To the new version the ledger of an older one is not there, and
# it rebuilds the batches from the volume, as when Redis was emptied.
LAYOUT = 3
PREFIX = f"bs{LAYOUT}:"

# string: the highest batch id given out. Never expires.
LAST_BATCH = PREFIX + "last_batch"
# string: id of the newest start-up batch. Written by submit.lua.
STARTUP = PREFIX + "startup"
# hash partition/priority → virtual time, s: the most that a batch had been served when a slice of it began.
# A batch that comes new to its waiting set starts there. Moved by claim and commit, and never back.
CLOCK = PREFIX + "clock"
# hash partition → ranges that are leased in it. Moves with LEASES.
LEASED = PREFIX + "leased"
# zset batch id → Redis time at which its first parked range is released, s.
PARKED = PREFIX + "parked"
# set of partitions that ever had a batch. Written by submit.lua; never expires.
PARTITIONS = PREFIX + "partitions"
# set of "follower:followed": batches with aftercorr whose followed batch may have completed jobs before they came.
UNPRIMED = PREFIX + "unprimed"
# zset token → Redis time until which it is waited for, s: leases that a cancel ended and whose slot may be at the job
# still. Written by whatever cuts a lease (cancel, abort, max_fails), renew, stopped and release.
STOPPING = PREFIX + "stopping"
# zset token → Redis time at which the lease runs out, s: the ranges that slots are working on.
LEASES = PREFIX + "leases"
# zset batch id → Redis time of submit, s: every batch. Written by submit.lua.
BATCHES = PREFIX + "batches"
# set of batch ids that have not ended. Written by submit, commit, reclaim and cancel.
ACTIVE = PREFIX + "active"
# set of batch ids that have ended and whose results files are not written yet. Written as ACTIVE, and by finished.lua.
FINISHING = PREFIX + "finishing"
# string: there since the ledger was first used; when it is missing, Redis has been emptied. Never expires.
MARKER = PREFIX + "marker"
# hash directory, "." the outputs directory itself → tries: its batch could not be rebuilt after Redis was emptied.
NOT_REBUILT = PREFIX + "not_rebuilt"
# string: there while NOT_REBUILT is not tried again. Expires by itself.
REBUILD_PAUSE = PREFIX + "rebuild_pause"
# zset worker name → Redis time of its last heartbeat, s. Written by heartbeat.lua, which drops the silent.
WORKERS = PREFIX + "workers"
# hash worker name → JSON of what it said of itself at its last heartbeat. As WORKERS.
WORKER_INFO = PREFIX + "worker_info"
# string: slots of all live workers. Written by heartbeat.lua.
SLOTS = PREFIX + "slots"
# hash partition → slots of the live workers that serve it. As SLOTS.
PARTITION_SLOTS = PREFIX + "partition_slots"
# hash "partition/simulation:version" → slots of the live workers that can run it; the built-in ones all can. As SLOTS.
OFFERS = PREFIX + "offers"
# hash slot name → its number in the job table's worker column. Grows by one per slot name; never expires.
SLOT_NUMBERS = PREFIX + "slot_numbers"
# string: name of the housekeeper. Expires by itself when it dies.
HOUSEKEEPER = PREFIX + "housekeeper"


def batch(batch_id: int) -> str:
    """Hash: specification, counters by state, times. Lives as long as the batch is known.

    ``needless`` is how many of the ABORTED jobs the batch's own stop rule ended, which ``close`` in endings.lua and
    requeue.lua count.
    """
    return f"{PREFIX}batch:{batch_id}"


def waiting(partition: str) -> str:
    """Zset batch id → its virtual time less its priority, s: batches whose ranges slots may take."""
    return f"{PREFIX}waiting:{partition}"


def parked(batch_id: int) -> str:
    """Zset token → Redis time of release, s: ranges that wait for their next attempt."""
    return f"{PREFIX}batch:{batch_id}:parked"


def blocked(batch_id: int) -> str:
    """Zset token → first job: ranges whose elements in the followed batch (aftercorr) have not completed."""
    return f"{PREFIX}batch:{batch_id}:blocked"


def closed(batch_id: int) -> str:
    """List of JSON [first, count, state, reason]: jobs that ended without a commit. By close_spans in endings.lua."""
    return f"{PREFIX}batch:{batch_id}:closed"


def events(batch_id: int) -> str:
    """List of JSON: what happened to jobs of the batch, the last thousand. Written by ``event`` in lib.lua.

    ``first``, ``count`` and, when it happened to only some of these jobs, ``runs``: first, count of each. ``ran`` has
    the jobs that ran then.
    """
    return f"{PREFIX}batch:{batch_id}:events"


def ranges(batch_id: int) -> str:
    """Zset token → sequence number: the ranges of the batch that wait for a slot, oldest first."""
    return f"{PREFIX}batch:{batch_id}:waiting"


def table(batch_id: int, segment: int) -> str:
    """String: fixed-width job records, :data:`common.ledger.table.SEGMENT_JOBS` of them. Written by commit.lua."""
    return f"{PREFIX}batch:{batch_id}:table:{segment}"


def statistics(batch_id: int) -> str:
    """Hash ``output:n|mean|m2|min|max`` → number: statistics of the outputs. By commit, requeue and finished.lua."""
    return f"{PREFIX}batch:{batch_id}:statistics"


def failures(batch_id: int) -> str:
    """Hash job index → error text, bounded in number and length. Written by commit.lua and reclaim.lua."""
    return f"{PREFIX}batch:{batch_id}:failures"


def finisher(batch_id: int) -> str:
    """String: the process that writes the batch's results files. Expires by itself when that dies."""
    return f"{PREFIX}batch:{batch_id}:finisher"


def verification(batch_id: int, name: str, part: int | None = None, what: str = "") -> str:
    """String: JSON plan of a verification. All expire.

    Of a part, ``what`` is "asked" (its jobs), "report", "at" (a job), "alive", or how often it was asked for "again".
    """
    return f"{PREFIX}batch:{batch_id}:verification:{name}" + (f":{part}:{what}" if what else "")


def leased_range(token: str) -> str:
    """Hash: batch, partition, first, count; once leased also worker and slot. Until its last job is committed.

    ``at`` is the job that its holder was at when it renewed, and ``at_since`` since when it is; ``since`` when it was
    claimed or last committed.

    ``base`` attempts were made before the batch was requeued, ``tries`` failed since, ``lost`` were lost with their
    worker: together, plus one, the number of the attempt. ``crashes`` are those of the job at the head; while
    ``careful`` seconds are left, jobs are committed one by one.
    """
    return f"{PREFIX}range:{token}"


def idempotency(key: str) -> str:
    """String: the batch that a submit with this key made. Expires after a day; a start-up batch's key never does."""
    return f"{PREFIX}idempotency:{key}"
