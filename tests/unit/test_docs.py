"""The documents say what the code does."""

import re
import shlex
import subprocess
from collections.abc import Iterator

import click
import pytest
from werkzeug.routing import Rule

from batchsim.cli import batchsim
from common.options import Options
from common.settings import SECRETS, Settings
from services.api.app import create_app
from tests.support import REPO, environment

ASSIGNMENT = re.compile(r"^#?([A-Z][A-Z0-9_]*)=", re.MULTILINE)
FIELDS = {name.upper() for name in Settings.model_fields}


def text(name: str) -> str:
    """A file of the repository."""
    return (REPO / name).read_text(encoding="utf-8")


def offered() -> list[str]:
    """The variables in .env.example, in use or commented out."""
    return ASSIGNMENT.findall(text(".env.example"))


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_setting_is_in_env_example(name: str) -> None:
    """Every setting is explained once in .env.example."""
    assert offered().count(name) == 1


def test_env_example_offers_nothing_unknown() -> None:
    """What is no setting is a secret's file or a variable that docker-compose.yml reads."""
    composed = set(re.findall(r"\$\{([A-Z][A-Z0-9_]*)", text("docker-compose.yml")))
    files = {f"{name.upper()}_FILE" for name in SECRETS}
    assert set(offered()) - FIELDS - files - composed == set()


def test_compose_variables_are_in_env_example() -> None:
    """Every variable that docker-compose.yml reads is explained in .env.example."""
    composed = set(re.findall(r"(?<!\$)\$\{([A-Z][A-Z0-9_]*)", text("docker-compose.yml")))
    assert composed - set(offered()) == set()


def test_env_example_shows_the_defaults() -> None:
    """`#NAME=value` is the default, as the file's first lines say."""
    shown = dict(re.findall(r"^#([A-Z][A-Z0-9_]*)=(.*)$", text(".env.example"), re.MULTILINE))
    for name, field in Settings.model_fields.items():
        if name in SECRETS or field.default_factory or name.upper() not in shown or not shown[name.upper()]:
            continue
        # Empty means API_HOST there, and that is this address by default.
        default = "127.0.0.1" if name == "bind_address" else field.default
        assert shown[name.upper()] == str(default), name


def test_env_example_is_valid() -> None:
    """A fresh copy of .env.example is accepted as it is."""
    settings = Settings(_env_file=REPO / ".env.example")  # type: ignore[call-arg]
    assert settings.num_jobs == 5


def menu(*goal: str) -> str:
    """What make prints for this goal."""
    command = ["make", "-s", *goal]
    return subprocess.run(command, cwd=REPO, env=environment(), capture_output=True, text=True, check=True).stdout


def test_make_help_lists_every_target() -> None:
    """`make help` shows each target that has a `##` text, and `make` alone is `make help`."""
    targets = re.findall(r"^([a-z-]+):.*## (.*)$", text("Makefile"), re.MULTILINE)
    assert targets
    shown = [menu(), menu("help")]
    assert shown[0] == shown[1]
    for target, promise in targets:
        assert re.search(rf"^  make {target} +{re.escape(promise)}$", shown[1], re.MULTILINE), target


def rules() -> Iterator[Rule]:
    """The routes of the API, without Flask's own for static files."""
    app = create_app(Settings(redis_url="redis://127.0.0.1:1"))
    yield from (rule for rule in app.url_map.iter_rules() if rule.endpoint != "static")


def listed_routes() -> set[str]:
    """The routes in README's API table; "POST `/a/x`, `/y`" stands for /a/x and /a/y."""
    found = set()
    for method, paths in re.findall(r"^\| (GET|POST|PATCH) (`[^|]*`) \|", text("README.md"), re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", paths)
        found |= {f"{method} {first}", *(f"{method} {first.rpartition('/')[0]}{other}" for other in others)}
    return found


@pytest.mark.parametrize("rule", list(rules()), ids=str)
def test_route_is_in_the_readmes_table(rule: Rule) -> None:
    """Every route has a line with its method and path in README's API table."""
    path = re.sub(r"<(?:\w+:)?(\w+)>", r"<\1>", rule.rule)
    for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
        assert f"{method} {path}" in listed_routes()


@pytest.mark.parametrize("verb", sorted(batchsim.commands))
def test_verb_is_in_the_readme(verb: str) -> None:
    """Every verb of the command line has a line in README's table of commands."""
    rows = [line for line in text("README.md").splitlines() if line.startswith("|")]
    assert any(re.search(rf"`batchsim {verb}\b", row.split(" | ")[0]) for row in rows), verb


def options_section() -> str:
    """What README says a batch may ask for."""
    _, _, rest = text("README.md").partition("What a batch may ask for")
    return rest.partition("\n`make` alone")[0]


@pytest.mark.parametrize("name", sorted(Options.model_fields))
def test_option_is_in_the_readme(name: str) -> None:
    """Every option that a batch has is explained where README says what a batch may ask for."""
    flag = {"parameters": "--param", "sweep": "--replications"}.get(name, f"--{name.replace('_', '-')}")
    assert re.search(rf"{flag}(?![a-z-])", options_section()), flag


def commands() -> list[str]:
    """The command lines with options that README shows, in code blocks and between backticks."""
    inline = re.findall(r"`(batchsim [a-z]+ [^`]+)`", text("README.md"))
    return inline + re.findall(r"^ {4}\$ (batchsim .*)$", text("README.md"), re.MULTILINE)


@pytest.mark.parametrize("line", commands())
def test_readmes_commands_can_be_typed(line: str) -> None:
    """Each has a verb that exists, with options and arguments that it takes."""
    name, *rest = shlex.split(line)[1:]
    with click.Context(batchsim) as parent:
        batchsim.commands[name].make_context(name, rest, parent=parent)


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"`(--[a-z-]+)", options_section()))))
def test_readme_names_no_option_that_is_none(flag: str) -> None:
    """What is shown as an option of submit is one."""
    submit = batchsim.commands["submit"]
    assert flag in {name for parameter in submit.params for name in parameter.opts}
