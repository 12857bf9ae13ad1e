"""A shell's line that a batch of a random run can have: what each job does and gives follows from its index."""

from common.programs.program import Program

OUTPUTS = ("sum",)
# What a job does, by the last two digits of its index; the others behave.
KINDS = {7: "raises", 13: "hangs", 19: "kills", 23: "flaky", 24: "flaky", 31: "memory"}
LINE = """
i=$JOB_INDEX
case $((i % 100)) in
7) exit 3 ;;
13) exec sleep 3600 ;;
19) kill -9 $$ ;;
23|24) [ "$JOB_ATTEMPT" -gt 1 ] || exit 1 ;;
31) exec tail /dev/zero ;;
esac
echo "seed $JOB_SEED" >&2
echo "{\\"sum\\": $((i * 7 + 1)), \\"job\\": $i}"
"""


def program() -> Program:
    """The line, to be run by a shell."""
    return Program((LINE,), "/", shell=True)


def kind(index: int) -> str:
    """What this job was made to do; "" when it behaves."""
    return KINDS.get(index % 100, "")


def csv(index: int) -> bytes:
    """Its file."""
    return f"sum,job\r\n{index * 7 + 1},{index}\r\n".encode()
