"""Batches submitted with a browser: the form is made from the schema, and what is wrong comes back as it was given."""

import html
import json
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from common.ledger import Connection, batches
from common.simulations import registry
from tests.integration.api_support import assert_guarded, assert_problem

OWN = """
from typing import Annotated, Literal
from pydantic import Field
from batchsim import simulation

@simulation(outputs={"y": float})
def own(rng, *, x: Annotated[float, Field(gt=0, le=10, description="how far")] = 1.5, n: int = 1, loud: bool = True,
        colour: Literal["red", "blue"] = "red", text: str = "a,b", needed: int, empty: str = "",
        maybe: int | None = None, choice: Literal["a", "b"] | None = None, weights: list[float] = [1.0],
        cap: float = float("inf")):
    "Something of the user's."
    return {"y": x}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: FlaskClient) -> FlaskClient:
    """A client of a server that has a simulation of a user's."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "own.py").write_text(OWN, encoding="utf-8")
    (tmp_path / "mine" / "broken.py").write_text("import no_such_module", encoding="utf-8")
    monkeypatch.setattr(registry, "_chosen", [tmp_path / "mine"])
    return client


def test_the_choice_names_all_simulations_and_what_is_broken(own: FlaskClient) -> None:
    response = own.get("/submit")
    assert_guarded(response)
    assert 'href="/submit/european_option"' in response.text
    assert 'href="/submit/own"' in response.text
    assert "no_such_module" in response.text


def test_the_form_comes_from_the_schema(own: FlaskClient) -> None:
    text = html.unescape(own.get("/submit/own").text)
    assert 'name="param:x" value="1.5"' in text
    assert "how far, > 0, ≤ 10" in text
    assert 'name="param:n" value="1"' in text
    assert "<option selected>true</option><option>false</option>" in text
    assert "<option selected>red</option><option>blue</option>" in text
    assert 'name="param:needed" value="" autocomplete="off" required' in text
    for name in ("empty", "maybe"):
        assert f'name="param:{name}" value="" autocomplete="off">' in text
    assert "<option selected></option><option>a</option><option>b</option>" in text
    assert "<script" not in text


def test_a_sweep_is_submitted(own: FlaskClient, connection: Connection) -> None:
    """Several values make a sweep; a text keeps its commas; what is left as it was is left to the default."""
    filled = {"param:x": "1:2:0.5", "param:n": "1", "param:loud": "false", "param:text": "c,d", "param:needed": "3"}
    answer = own.post("/submit/own", data={**filled, "jobs": "7", "replications": "1,000", "seed": "42"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/?batch=1")
    spec = batches.view(connection, 1).spec
    assert (spec.jobs, spec.seed, spec.parameters) == (3000, 42, {"loud": False, "text": "c,d", "needed": 3})
    assert spec.sweep["axes"] == {"x": [1, 1.5, 2]}
    page = own.get(answer.headers["Location"]).text
    assert "Batch 1 " in page
    assert '<th scope="col">y</th>' in page


def test_each_value_is_read_as_what_it_is_of(own: FlaskClient, connection: Connection) -> None:
    """A text is a text, whatever it looks like; a list is JSON; what is left empty by default can stay so."""
    filled = {"param:text": "007", "param:weights": "[1,2]", "param:needed": "3", "param:empty": "", "param:choice": ""}
    assert own.post("/submit/own", data={**filled, "jobs": "7"}).status_code == 303
    assert batches.view(connection, 1).spec.parameters == {"text": "007", "weights": [1, 2], "needed": 3}


def test_none_is_submitted(own: FlaskClient, connection: Connection, tmp_path: Path) -> None:
    """As null where the parameter can be that; elsewhere it is a text."""
    path = tmp_path / "mine" / "own.py"
    path.write_text(
        path.read_text().replace("maybe: int | None = None", 'maybe: int | None = 1, word: str | None = "a"')
    )
    form = {"jobs": "2", "param:needed": "1", "param:maybe": "null", "param:word": "null", "param:text": "null"}
    assert own.post("/submit/own", data=form).status_code == 303
    found = batches.view(connection, 1).spec.parameters
    assert found == {"needed": 1, "maybe": None, "word": None, "text": "null"}


def test_infinity_is_submitted(own: FlaskClient, connection: Connection) -> None:
    """As the text that the form shows and JSON can hold."""
    assert 'name="param:cap" value="inf"' in own.get("/submit/own").text
    for given, recorded in (("inf", {}), ("-inf", {"cap": "-inf"})):
        answer = own.post("/submit/own", data={"param:needed": "3", "param:cap": given, "jobs": "1"})
        assert answer.status_code == 303
        spec = batches.view(connection, max(batches.all_ids(connection))).spec
        assert spec.parameters == {"needed": 3, **recorded}
        json.loads(own.get(f"/batches/{spec.id}").text, parse_constant=pytest.fail)
    found = json.loads(own.get("/simulations").text, parse_constant=pytest.fail)["simulations"]
    schema = next(each["parameters"] for each in found if each["name"] == "own")
    assert schema["properties"]["cap"]["default"] == "inf"
    told = own.post("/submit/own", data={"param:needed": "3", "param:x": "inf", "jobs": "1"})
    assert "x is 'inf': input should be a finite number" in html.unescape(told.text)


def test_jobs_without_a_sweep(client: FlaskClient, connection: Connection) -> None:
    assert client.post("/submit/random_numbers", data={"jobs": "7", "output_mode": "packed"}).status_code == 303
    assert (batches.view(connection, 1).spec.jobs, batches.view(connection, 1).spec.output_mode) == (7, "packed")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"param:needed": "3", "param:x": "-1"}, "x is -1: input should be greater than 0"),
        ({"param:needed": "3", "param:x": "1:2:0"}, "x: 1:2:0: the step leads away from the end"),
        ({"param:needed": "3", "param:x": "0:inf:1"}, "x: 0:inf:1: START:STOP:STEP must be three finite numbers"),
        ({"param:needed": "a:b:c"}, "needed is 'a:b:c'"),
        ({"param:needed": "3", "param:weights": "1,2"}, "weights: '1,2' is not JSON"),
        ({"param:needed": "3", "param:weights": "[" * 9000}, "weights: [[["),
        ({}, "needed is missing"),
        ({"param:needed": "3", "jobs": "many"}, "jobs is 'many'; it must be a whole number"),
        ({"param:needed": "3", "seed": "-1"}, "seed is '-1'; it must be a whole number"),
        ({"param:needed": "3", "until": "soon"}, "until: write ci_halfwidth(OUTPUT) < 0.01"),
        ({"param:needed": "<b>"}, "needed is '<b>'"),
    ],
)
def test_what_is_wrong_comes_back(own: FlaskClient, connection: Connection, given: dict[str, str], told: str) -> None:
    """The form says what is wrong, keeps what was filled in, and nothing was submitted."""
    answer = own.post("/submit/own", data={"jobs": "5", **given})
    assert answer.status_code == 400
    assert told in html.unescape(answer.text)
    assert "<b>" not in answer.text.split("<main>")[1].replace("<b>1", "")
    for name, value in given.items():
        assert f'name="{name}" value="{html.escape(value)}"' in answer.text
    assert batches.all_ids(connection) == []


def test_half_a_character_comes_back(own: FlaskClient, connection: Connection) -> None:
    """What is typed as JSON can name it."""
    answer = own.post("/submit/own", data={"param:needed": "3", "param:weights": r'["\ud800"]'})
    assert answer.status_code == 400
    assert r"weights has a text with \ud800 in it, which is half of a character" in answer.text
    assert batches.all_ids(connection) == []


def test_other_sites_cannot_submit(client: FlaskClient, connection: Connection) -> None:
    answer = client.post("/submit/random_numbers", data={"jobs": "7"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert_problem(answer, 403)
    assert batches.all_ids(connection) == []


def test_an_unknown_simulation(client: FlaskClient) -> None:
    assert_problem(client.get("/submit/no_such"), 400, "simulation")


def test_the_page_of_an_unknown_batch(client: FlaskClient) -> None:
    answer = client.get("/?batch=99")
    assert answer.status_code == 404
    assert "99" in answer.text
