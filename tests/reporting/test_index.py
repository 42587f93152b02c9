from dataclasses import replace

import pytest

from tersor.errors import FolderError
from tersor.reporting.folder import write_folder
from tersor.reporting.index import render_index, write_index


def test_the_latest_run_comes_first_and_links_to_its_report(record, bare):
    early = replace(bare, title="early", created="2025-01-01T00:00:00")
    html = render_index([("a", early), ("b c#?", record)])
    assert html.index(record.title) < html.index("early")
    assert 'href="./b%20c%23%3F/report.html"' in html


def test_a_folder_name_cannot_lead_elsewhere(bare):
    assert 'href="./javascript%3Aalert%281%29%22%3E/report.html"' in render_index(
        [('javascript:alert(1)">', bare)]
    )


def test_the_index_lists_the_folders_that_tersor_wrote(tmp_path, bare):
    write_folder(tmp_path / "one", bare, files={})
    write_folder(tmp_path / "two", replace(bare, title="second"), files={})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "report.json").write_text("{}")
    page = write_index(tmp_path)
    text = page.read_text()
    assert "2 runs" in text
    assert "second" in text
    assert write_index(tmp_path) == page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "one", "other", "two"]


def test_an_index_of_somebody_else_is_kept(tmp_path, bare):
    write_folder(tmp_path / "one", bare, files={})
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(FolderError, match="not written by tersor"):
        write_index(tmp_path)
    assert (tmp_path / "index.html").read_text() == "mine"


def test_a_folder_without_runs_is_an_error(tmp_path):
    with pytest.raises(FolderError, match="Give the folder that holds"):
        write_index(tmp_path)


def test_runs_in_several_places_share_a_page(tmp_path, bare):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_folder(tmp_path / name / "run", replace(bare, title=f"run of {name}"), files={})
    page = write_index(tmp_path / "a" / "run", tmp_path / "b", page=tmp_path / "all.html")
    text = page.read_text()
    assert 'href="./a/run/report.html"' in text
    assert 'href="./b/run/report.html"' in text
    assert write_index(tmp_path / "a" / "run", tmp_path / "b" / "run") == tmp_path / "index.html"
