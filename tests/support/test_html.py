"""Texts and attributes come back from a page as they went in; no text ends a script."""

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamshoot.support.html import element, script_json, table, written

#: What HTML itself changes (line ends) or drops (NUL) is no matter of escaping.
TEXTS = st.text(st.characters(exclude_characters="\r\x00", exclude_categories=["Cs"]), max_size=40)


class Read(HTMLParser):
    """Tags, attributes and texts in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append(dict(attributes))

    def handle_data(self, text):
        self.text += text


@given(TEXTS, TEXTS)
def test_any_text_is_text_and_any_attribute_an_attribute(text, value):
    read = Read(written(element("p", element("b", text, title=value), text)))
    assert read.tags == ["p", "b"]
    assert read.text == text + text
    assert read.attributes[1] == {"title": value}


@given(st.recursive(TEXTS | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8))
def test_json_inside_a_script_is_the_same_json(value):
    text = script_json(value)
    assert json.loads(text) == value
    assert not set("<>&") & set(text)
    assert Read(written(element("script", text, type="application/json"))).text == text


@pytest.mark.parametrize("tag", ["script", "style"])
def test_what_would_end_a_script_is_refused(tag):
    with pytest.raises(ValueError, match=f"{tag}: expected a text without '</'"):
        element(tag, "</script><b>")


def test_attributes_have_dashes_and_flags_no_value():
    made = element("input", aria_label="a", for_="b", hidden=True, checked=False, value=None)
    assert made.attrib == {"aria-label": "a", "for": "b", "hidden": ""}


def test_texts_stand_between_the_elements_that_they_stood_between():
    assert written(element("p", "a", None, element("i", "b"), "c", "d")) == "<p>a<i>b</i>cd</p>"


def test_a_table_names_columns_and_rows():
    text = written(table(["", "x"], [["a", "1"], ["b", "2"]], "caption"))
    assert text.count('scope="row"') == text.count('scope="col"') == 2
    assert "<caption>caption</caption>" in text
    assert "<thead>" not in written(table([], [["a", "1"]]))
