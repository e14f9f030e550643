"""What scripts print is what they were given: names, paths and JSON."""

import json

import cli
import pytest

AWKWARD = [
    "runs/a:x:b",
    "[red]b[/red]",
    "cost $a^$",
    "a  b",
    "/long" * 60,
    "1.5 'x' True http://a.b",
]


@pytest.mark.parametrize("text", AWKWARD)
def test_a_line_is_printed_as_it_is(capsys, text):
    cli.say(text)
    cli.log(text)
    cli.say(json.dumps({"folder": text}, indent=2))
    printed = capsys.readouterr()
    assert printed.err == f"{text}\n"
    first, _, rest = printed.out.partition("\n")
    assert first == text
    assert json.loads(rest) == {"folder": text}


@pytest.mark.parametrize("text", AWKWARD)
def test_a_cell_is_printed_as_it_is(capsys, text):
    cli.table(text, (text, "b"), [(text, "1")], text)
    assert capsys.readouterr().out.count(text) == 4
