"""Settings: one clear line for each bad value, one order of precedence, secrets that stay secret."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common import settings
from common.errors import SettingsError
from common.settings import Settings

BAD = {
    "NUM_JOBS": ["0", "-1", "100000001", "five", "5.0", "1e3", "0x10", "1__0", "+-5", "9" * 5000],
    "SEED": ["-1", "9223372036854775808", "abc", "1.5"],
    "WORKERS": ["0", "1025", "many"],
    "WORKER_CONCURRENCY": ["0", "1025", "2.5"],
    "WORKER_PARTITIONS": ["GPU", "-x", "a b", ",", "a;b"],
    "API_PORT": ["0", "65536", "http"],
    "FLOWER_PORT": ["0", "65536", "-5555"],
    "FLOWER_USER": ["a:b"],
    "REDIS_URL": ["http://host", "host:6379", "://x"],
    "JOB_SECONDS": ["-1", "86401", "nan", "soon"],
    "SLICE_SECONDS": ["0", "61", "nan", "inf", "soon"],
    "LEASE_SECONDS": ["0.5", "3601", "nan", "x"],
    "JOBS_PER_TASK": ["-1", "1.5", "100000001"],
    "SHUTDOWN_GRACE_SECONDS": ["-1", "3601", "nan"],
    "DURABILITY": ["sometimes"],
    "MIN_FREE_MB": ["-1", "1.5", "lots"],
    "LOG_LEVEL": ["LOUD"],
    "LOG_FORMAT": ["xml"],
    "API_HOST": ["0.0.0.0", "::", "10.1.2.3", "example.org"],
    "BIND_ADDRESS": ["0.0.0.0", "192.168.0.7"],
}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting from the developer's shell or ``.env``."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(f"{name.upper()}_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    return


def message(**given: str) -> str:
    """The message that these options are refused with."""
    with pytest.raises(SettingsError) as caught:
        settings.load({name.lower(): value for name, value in given.items()})
    return caught.value.message


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_bad_value_is_one_line_that_names_it(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad value in the environment is refused in one line that begins with VARIABLE=value."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        settings.load()
    assert caught.value.message.startswith(f"{name}={value}"[:200])
    assert "\n" not in caught.value.message
    assert caught.value.status == 400


@pytest.mark.parametrize("name", [name for name in BAD if name not in ("API_HOST", "BIND_ADDRESS")])
def test_bad_option_is_named_as_the_variable(name: str) -> None:
    """An option of the command line is refused with the same words as the variable."""
    assert message(**{name: BAD[name][0]}).startswith(f"{name}={BAD[name][0]}: ")


def test_every_limited_field_has_a_bad_value() -> None:
    """A new setting that can be wrong gets into the table above."""
    free_text = {"OUTPUT_DIR", "SIMULATIONS_DIR", "API_TOKEN", "FLOWER_PASSWORD", "REDIS_PASSWORD"}
    assert {name.upper() for name in Settings.model_fields} - free_text == set(BAD)


def test_a_line_break_in_a_value_does_not_break_the_line() -> None:
    """The message stays one line whatever the value holds."""
    assert "\n" not in message(NUM_JOBS="5\n6")


def test_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An option beats the environment, which beats .env, which beats the default."""
    assert settings.load().num_jobs == 5
    (tmp_path / ".env").write_text("NUM_JOBS=6\n")
    assert settings.load().num_jobs == 6
    monkeypatch.setenv("NUM_JOBS", "7")
    assert settings.load().num_jobs == 7
    assert settings.load({"num_jobs": "8"}).num_jobs == 8


def test_option_that_was_not_given_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option of None, as click gives for an absent one, leaves the environment's value."""
    monkeypatch.setenv("NUM_JOBS", "7")
    assert settings.load({"num_jobs": None}).num_jobs == 7


def test_empty_variable_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """``SEED=`` in .env.example means a random seed, not an error."""
    monkeypatch.setenv("SEED", "")
    assert settings.load().seed is None


@pytest.mark.parametrize(("text", "value"), [("1_000", 1000), (" 7 ", 7), ("100_000_000", 100_000_000)])
def test_whole_numbers_as_users_write_them(text: str, value: int) -> None:
    """Thousands separators and blanks around are understood."""
    assert settings.load({"num_jobs": text}).num_jobs == value


def test_secret_from_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A secret is read from its file, without the line's end, and beats the variable."""
    (tmp_path / "secret").write_text("pa ss\n")
    monkeypatch.setenv("REDIS_PASSWORD", "other")
    monkeypatch.setenv("REDIS_PASSWORD_FILE", str(tmp_path / "secret"))
    assert settings.load().redis_password.get_secret_value() == "pa ss"


def test_secret_file_from_dotenv(tmp_path: Path) -> None:
    """.env.example offers *_FILE, so .env can set it."""
    (tmp_path / "secret").write_text("from-file")
    (tmp_path / ".env").write_text(f"API_TOKEN_FILE={tmp_path}/secret\n")
    assert settings.load().api_token.get_secret_value() == "from-file"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"], ids=["missing", "not text"])
def test_unreadable_secret_file_is_named(
    content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A secret's file that cannot be read is one line that names the variable and the path."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("API_TOKEN_FILE", str(path))
    with pytest.raises(SettingsError, match=f"^API_TOKEN_FILE={path}: cannot be read: [^\n]+$"):
        settings.load()


def test_secrets_are_never_shown() -> None:
    """No secret is in the repr of the settings, nor in the message about another value."""
    secrets = {"redis_password": "hunter2", "api_token": "hunter3", "flower_password": "hunter4"}
    assert "hunter" not in repr(settings.load(secrets)) + str(settings.load(secrets))
    with pytest.raises(SettingsError) as caught:
        settings.load({**secrets, "num_jobs": "0"})
    assert "hunter" not in f"{caught.value!r}{caught.value.__cause__!r}"


def test_password_in_a_bad_url_is_not_shown() -> None:
    """A password inside a wrong REDIS_URL is a secret too."""
    assert "hunter2" not in message(REDIS_URL="http://user:hunter2@host:6379")


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "127.8.9.1"])
def test_loopback_needs_no_token(address: str) -> None:
    """An API that only this machine can reach may be open."""
    assert not settings.load({"api_host": address}).exposed


def test_exposed_with_a_token() -> None:
    """With a token every address is allowed; the published address decides, not the process's."""
    assert settings.load({"bind_address": "0.0.0.0", "api_token": "t"}).exposed
    assert not settings.load({"api_host": "0.0.0.0", "bind_address": "127.0.0.1"}).exposed


@pytest.mark.parametrize(
    ("url", "password", "whole"),
    [
        ("redis://h:6379/0", "", "redis://h:6379/0"),
        ("redis://h:6379/0", "a/b@c:d", "redis://:a%2Fb%40c%3Ad@h:6379/0"),
        ("rediss://user@h:1/2", "p", "rediss://user:p@h:1/2"),
        ("redis://:mine@h/0", "p", "redis://:mine@h/0"),
        ("redis://[::1]:6379", "p", "redis://:p@[::1]:6379"),
    ],
)
def test_broker_url(url: str, password: str, whole: str) -> None:
    """The password goes into the URL, quoted, unless it has one."""
    assert settings.load({"redis_url": url, "redis_password": password}).broker_url == whole


def test_environment_gives_a_child_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is started with ``environment()`` reads exactly these settings."""
    given = {"num_jobs": "9", "seed": "3", "api_token": "t", "slice_seconds": "0.3", "output_dir": "/x", "workers": "2"}
    parent = settings.load(given)
    for name, value in parent.environment().items():
        monkeypatch.setenv(name, value)
    assert settings.load() == parent
