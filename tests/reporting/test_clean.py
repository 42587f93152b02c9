import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.reporting.clean import LONGEST, clean, clean_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/ada/x.py:build", "~/x.py:build"),
        ("'/Users/ada lovelace'/x", "'~ lovelace'/x"),
        (r"C:\Users\ada\x", r"~\x"),
        ("/root/model", "~/model"),
        ("--weights=/home/ada/w", "--weights=~/w"),
        ("/rooted/model", "/rooted/model"),
        ("x/home/ada", "x/home/ada"),
        ("hf_abcdefghijklmnopqrstuv", "[removed]"),
        ("ghp_0123456789abcdef0123", "[removed]"),
        ("https://ada:pw@host/x", "https://[removed]@host/x"),
        ("Bearer abcdef0123456789abcdef", "Bearer [removed]"),
        ("a\x1b[2Jb\x07", "a[2Jb"),
        ("a\u202eb\u2066c", "abc"),
        ("a\u2028b\rc", "a\nb\nc"),
        ("\ud800x", "\ufffdx"),
        ("naïve 模型 🙂", "naïve 模型 🙂"),
    ],
)
def test_text_is_cleaned(text, shown):
    assert clean_text(text, home="/nowhere/at/all") == shown


def test_the_home_of_the_user_is_a_tilde():
    assert clean_text("/srv/people/ada/x /srv/people/adam", home="/srv/people/ada") == "~/x /srv/people/adam"


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=200))
def test_any_text_comes_out_printable_encodable_and_stable(text):
    shown = clean_text(text, home="/home/ada")
    shown.encode()
    assert all(c in "\n\t" or (ord(c) >= 32 and not 0x7F <= ord(c) < 0xA0) for c in shown)
    assert clean_text(shown, home="/home/ada") == shown


def test_endless_text_is_cut():
    assert len(clean_text("x" * 10**6)) == LONGEST


def test_a_clean_record_is_left_as_it_is(record):
    assert clean(record) == record
