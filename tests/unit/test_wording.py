"""What people read of a batch, in the same words everywhere."""

import pytest

from common.wording import jobs_text, rule_text, state_text


def test_jobs() -> None:
    """One is one."""
    assert (jobs_text(1), jobs_text(0), jobs_text(12000)) == ("1 job", "0 jobs", "12,000 jobs")


@pytest.mark.parametrize(
    ("state", "succeeded", "said"),
    [
        ("ABORTED", True, "ABORTED by its stop rule"),
        ("ABORTED", False, "ABORTED"),
        ("COMPLETED", True, "COMPLETED"),
        ("FAILED", False, "FAILED"),
    ],
)
def test_states(state: str, succeeded: bool, said: str) -> None:
    """What max_fails has given up is not what a stop rule has ended."""
    assert state_text(state, succeeded=succeeded) == said


@pytest.mark.parametrize(
    ("needless", "not_run", "said"),
    [
        (1, 1, "met, 1 job was not needed"),
        (9000, 9001, "met, 9,000 jobs were not needed"),
        (0, 3, "not met when the batch ended"),
        (0, 0, "all jobs were run"),
    ],
)
def test_stop_rules(needless: int, not_run: int, said: str) -> None:
    """Of a batch that was cancelled not all jobs were run."""
    assert rule_text("count(x) >= 5", needless=needless, not_run=not_run) == f"count(x) >= 5: {said}"
