"""What people read of a batch in several places, said in one: by commands, pages and ``explain``. Of no library."""


def valid_text(text: str) -> str:
    """The text as any reader of UTF-8 takes it: what is no character is written as its escape.

    Such are the bytes of a file's name that is not UTF-8, and halves of surrogate pairs. Redis's JSON refuses them.
    """
    return text.encode(errors="backslashreplace").decode()


def parameter_text(value: object) -> str:
    """A parameter's value as ``points.csv`` has it: 80, not 80.0."""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)


def jobs_text(count: int) -> str:
    """``1 job``, ``1,000 jobs``."""
    return "1 job" if count == 1 else f"{count:,} jobs"


def state_text(state: str, *, succeeded: bool) -> str:
    """A batch's state; of one that is ABORTED and has succeeded all the same, that its stop rule has ended it."""
    return f"{state} by its stop rule" if succeeded and state == "ABORTED" else state


def rule_text(until: str, *, needless: int, not_run: int) -> str:
    """How it went with a stop rule, once the batch has ended.

    ``needless`` jobs were spared by it; ``not_run`` were given up for whatever reason.
    """
    if needless:
        return f"{until}: met, {jobs_text(needless)} {'was' if needless == 1 else 'were'} not needed"
    return f"{until}: " + ("not met when the batch ended" if not_run else "all jobs were run")
