"""Names that are made of a stack's folder, whatever that is called."""

import string
from pathlib import Path

from services.local.installation import Installation

ODD = ["/srv/a b", "/srv/Übersicht 日本", '/srv/it\'s "quoted" \\ here', "/srv/100 %h", "/srv/a@b", "/srv/line\nbreak"]


def test_a_home_has_a_plain_name_of_its_own() -> None:
    names = [Installation(Path(home), {}, {}, "rclone").plain_name for home in ODD]
    assert len(set(names)) == len(ODD)
    assert set("".join(names)) <= set(string.hexdigits)
