"""docs/api.md says what the endpoints say."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvnet.api import document
from kvnet.api.endpoints import ENDPOINTS
from kvnet.api.openapi_endpoints import NAMESPACES, PATHS

FILE = Path(__file__).parents[3] / "docs" / "api.md"


def test_page_is_up_to_date():
    text = FILE.read_text()
    assert document.fill(text) == text, "run `python -m kvnet.api.document`"


def test_page_has_an_example_of_each_request():
    text = FILE.read_text()
    for resource, methods in ENDPOINTS.items():
        path = PATHS[resource].replace(NAMESPACES, "NS").replace("{namespace_id}", "{id}")
        for method in methods:
            section = text.partition(f"\n### {method} {path}\n")[2].partition("\n### ")[0]
            assert 'curl -H "$AUTH"' in section, f"{method} {path}"


def test_only_what_stands_between_the_marks_is_made(monkeypatch, tmp_path):
    file = tmp_path / "api.md"
    file.write_text("Before.\n\n<!-- made: errors -->\nstale row\n<!-- end -->\n\nAfter.\n")
    monkeypatch.setattr("sys.argv", ["document", str(file)])
    assert document.main() == 0
    text = file.read_text()
    assert text.startswith("Before.\n\n<!-- made: errors -->\n\n| status | code |")
    assert text.endswith("|\n\n<!-- end -->\n\nAfter.\n")
    assert "stale row" not in text
    assert document.fill(text) == text


def test_mark_of_a_part_that_nobody_makes_is_an_error():
    with pytest.raises(KeyError, match="nothing"):
        document.fill("<!-- made: nothing -->\n<!-- end -->\n")
