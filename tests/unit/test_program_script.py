"""Scripts as sbatch takes them: which lines count, how they are read, and what is only warned of."""

from pathlib import Path

import pytest

from common.errors import InvalidInput
from common.programs.script import Script, parse_memory, parse_time, read_script


def script(place: Path, *lines: str, first: str = "#!/bin/sh") -> Script:
    """Read a script of these lines."""
    path = place / "job.sh"
    path.write_text("\n".join([first, *lines]) + "\n")
    return read_script(path)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 5400), ("1:30", 90), ("1:30:00", 5400), ("0:0:5", 5), ("1-0", 86400), ("2-12", 216000),
     ("1-2:30", 95400), ("1-2:30:15", 95415), ("UNLIMITED", 0), ("infinite", 0), ("90:00", 5400)],
)  # fmt: skip
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "1:2:3:4", "1-", "-1", "1.5", "1-2:3:4:5", "1h", "\uff11"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [("0", 0), ("500", 500), ("500M", 500), ("4G", 4096), ("4g", 4096), ("4GB", 4096), ("1T", 2**20), ("1K", 1),
     ("1024K", 1), ("1025K", 2)],
)  # fmt: skip
def test_sizes(text: str, megabytes: int) -> None:
    assert parse_memory(text) == megabytes


@pytest.mark.parametrize("text", ["", "M", "1.5G", "4P", "-1", "4 G"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_memory(text)


@pytest.mark.parametrize(
    "lines",
    [
        ("#SBATCH --array=1-10%2", "#SBATCH --time=1:00:00", "#SBATCH --mem=2G", "#SBATCH --job-name=ising"),
        ("#SBATCH -a 1-10%2 -t 60", "#SBATCH --mem 2048 -J 'ising'"),
        ("#SBATCH -a1-10%2 -t60 # as ever", "# a comment", "", "   # another", "#SBATCH\t-Jising --mem=2G"),
        ("#SBATCH --array=5", "#SBATCH --array=1-10%2 --time=60:00 --mem=2G -J ising", "echo", "#SBATCH_ --time=5"),
        ("##SBATCH --time=5", "#SBATCH --array=1-10%2 --time=60 --mem=2G -J ising", "echo", "echo #SBATCH --mem=1"),
    ],
    ids=str,
)
def test_ways_to_write_the_same(tmp_path: Path, lines: tuple[str, ...]) -> None:
    found = script(tmp_path, *lines, "./model")
    assert (found.array, found.job_name, found.warnings) == ("1-10%2", "ising", ())
    assert dict(found.options) == {"time_limit_seconds": 3600.0, "memory_limit_mb": 2048}


def test_all_that_is_read(tmp_path: Path) -> None:
    found = script(
        tmp_path,
        "#SBATCH --output=%x/%A_%a.txt --error %A.err",
        "#SBATCH -d afterok:7",
        first="#! /usr/bin/env python3 -u",
    )
    assert found == Script(
        ("/usr/bin/env", "python3 -u"), stdout="%x/%A_%a.txt", stderr="%A.err", options=(("dependency", "afterok:7"),)
    )


def test_what_is_passed_over_in_silence(tmp_path: Path) -> None:
    lines = ("--requeue --ntasks=1", "-n 1 -N1 -c 1", "--cpus-per-task=1", "--account=me --comment 'a b' --export=ALL")
    assert script(tmp_path, *(f"#SBATCH {line}" for line in lines)) == Script(("/bin/sh",))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("--gres=gpu:1", "--gres=gpu:1"),
        ("--gres gpu:1", "--gres=gpu:1"),
        ("--cpus-per-task=4", "--cpus-per-task=4"),
        ("-p long", "-p long"),
        ("--exclusive", "--exclusive"),
        ("--no-requeue", "--no-requeue"),
        ("--time", "--time"),
        ("many words", "'many'"),
        ("--job-name='ising", '"--job-name=\'ising"'),
    ],
)
def test_what_is_warned_of(tmp_path: Path, line: str, shown: str) -> None:
    """With the file and the line; what else is on the line is read."""
    found = script(tmp_path, "# first", f"#SBATCH {line}", "#SBATCH --time=1")
    assert dict(found.options) == {"time_limit_seconds": 60.0}
    assert f"job.sh, line 3: {shown} is not supported and was passed over" in found.warnings[0]


@pytest.mark.parametrize(
    ("line", "field", "value", "remark"),
    [
        ("-o ./%A_%a.out", "stdout", "%A_%a.out", ""),
        ("-o runs//./%x.out", "stdout", "runs/%x.out", ""),
        ("-e /dev/null", "stderr", "/dev/null", ""),
        ("-o /home/u/%A_%a.out", "stdout", "%A_%a.out", "-o is outside"),
        ("-o ../logs/%j.out", "stdout", "%j.out", "the logs are there, as logs/%j.out"),
        ("-e ~/%j.err", "stderr", "%j.err", "outside"),
        ("-o /scratch/me/%A/%3a/out.log", "stdout", "%3a/out.log", "the logs are there, as logs/%3a/out.log"),
        ("-o %t.out", "stdout", "", "has %t, which is not known, and was passed over"),
        ("-o x%", "stdout", "", "which is not known, and was passed over"),
        ("-t 40-0", "time_limit_seconds", 30 * 86400, "more than the largest limit, 2_592_000 (time"),
        ("--mem=5T", "memory_limit_mb", 2**22, "more than the largest limit, 4_194_304"),
        ("-a 0-9%0", "array", "0-9", ""),
        ("-d afterok:7:8,afterany:9", "dependency", "afterok:7:8,afterany:9", ""),
    ],
)
def test_what_is_done_nearly_or_as_it_is(tmp_path: Path, line: str, field: str, value: object, remark: str) -> None:
    """What is taken instead, and a warning that says so."""
    found = script(tmp_path, f"#SBATCH {line}")
    taken = dict(found.options).get(field, getattr(found, field, ""))
    assert taken == value
    assert bool(found.warnings) == bool(remark)
    assert remark.removeprefix("-o ") in "".join(found.warnings)


@pytest.mark.parametrize(
    "wanted", ["singleton", "after:5+10", "afterok:12?afterok:13", "afterok:12_3", "afterburnok:4"]
)
def test_a_dependency_that_cannot_be_kept_is_an_error(tmp_path: Path, wanted: str) -> None:
    """Without it the jobs would run too early; the line is named."""
    with pytest.raises(InvalidInput, match="line 3: --dependency: ") as refused:
        script(tmp_path, "# first", f"#SBATCH --dependency={wanted}")
    assert refused.value.field == "script"


def test_an_unknown_option_takes_no_other_with_it(tmp_path: Path) -> None:
    found = script(tmp_path, "#SBATCH --gpus --time=5 -J x")
    assert (found.job_name, dict(found.options)) == ("x", {"time_limit_seconds": 300.0})
    assert len(found.warnings) == 1


def test_lines_after_the_first_command_are_not_read(tmp_path: Path) -> None:
    found = script(tmp_path, "echo", "#SBATCH --time=5")
    assert found.options == ()
    assert "line 3: #SBATCH after the first command is not read" in found.warnings[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"echo\n", "first line must be #!"),
        (b"#!\necho\n", "first line must be #!"),
        (b"", "first line must be #!"),
        (b"\x7fELF\x00\x01\n", "first line must be #!"),
        (b"#!/bin/sh\r\necho\r\n", "as in Windows"),
        (b"#!/bin/sh\n#SBATCH --time=soon\n", "line 2: --time: 'soon' is no time"),
        (b"#!/bin/sh\n#SBATCH --mem=much\n", "line 2: --mem: 'much' is no size"),
    ],
)
def test_what_is_no_script(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "job.sh"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=reason) as refused:
        read_script(path)
    assert refused.value.field == "script"
    assert str(path) in refused.value.message


def test_a_script_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        read_script(tmp_path / "none.sh")
    with pytest.raises(InvalidInput, match="directory"):
        read_script(tmp_path)
