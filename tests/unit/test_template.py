"""Templates of prompts: which lines stay, where the text stands, what is refused."""

from __future__ import annotations

import pytest

from everlora.core.errors import ConfigError
from everlora.data.template import Template


def test_the_default_by_hand() -> None:
    assert Template().around("films", "Judge.", ("good", "bad")) == ("Judge.\nOptions: good, bad\n", "\nAnswer:")


def test_lines_of_empty_fields_are_left_out() -> None:
    assert Template().around("films", "", ()) == ("", "\nAnswer:")
    assert Template().around("films", "", ("a",)) == ("Options: a\n", "\nAnswer:")
    fixed = Template("Read.\n{instruction}{labels}\n\n<<{text}>>\n{task}?")
    assert fixed.around("films", "", ()) == ("Read.\n\n<<", ">>\nfilms?")


def test_braces_of_the_text_and_of_the_template() -> None:
    assert Template("{{json}}: {text}").around("t", "{labels}", ()) == ("{json}: ", "")
    assert Template("{instruction}\n{text}").around("t", "Say {x}", ()) == ("Say {x}\n", "")


@pytest.mark.parametrize(
    ("spelt", "said"),
    [
        ("{instruction}", "{text} exactly once"),
        ("{text} {text}", "{text} exactly once"),
        ("{text}\n{lables}", "line 2: unknown field {lables}; did you mean 'labels'"),
        ("{text}{}", "unknown field {}"),
        ("{text:>9}", "unknown field {text:>9}"),
        ("{text", "line 1: "),
        ("{text} }", "for a brace of the text"),
    ],
)
def test_what_cannot_be_filled_is_refused(spelt: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        Template(spelt)
    assert said in str(error.value)
