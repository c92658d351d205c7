"""Names that are made of a stack's folder, whatever that is called."""

import string
from pathlib import Path

import pytest

from services.local.application import node_name
from services.local.broker import quoted

ODD = ["/srv/a b", "/srv/Übersicht 日本", '/srv/it\'s "quoted" \\ here', "/srv/100 %h", "/srv/a@b", "/srv/line\nbreak"]


def test_a_worker_is_called_plainly_and_by_its_own_home() -> None:
    names = [node_name("worker", Path(home)) for home in ODD]
    assert len(set(names)) == len(ODD)
    assert set("".join(names)) <= set(string.ascii_lowercase + string.digits + "@")


@pytest.mark.parametrize("home", ODD)
def test_a_word_of_the_brokers_configuration_is_plain_and_reads_as_it_was(home: str) -> None:
    word = quoted(home)
    assert word.isascii()
    assert "\n" not in word
    assert word[1:-1].encode().decode("unicode_escape").encode("latin-1").decode() == home
