"""The pages for newcomers: their commands and their Python run as they stand there, in one folder, in order."""

import re
import shlex
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"```(sh|python)\n(.*?)```", re.S)


@pytest.mark.parametrize("page", ["own_microscope", "own_movie", "own_particles"])
def test_a_page_runs_as_it_stands(lfjax, tmp_path, monkeypatch, page):
    blocks = BLOCK.findall((DOCS / f"{page}.md").read_text(encoding="utf-8"))
    assert {kind for kind, _ in blocks} == {"sh", "python"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LFJAX_CACHE", str(tmp_path / "cache"))
    for kind, text in blocks:
        if kind == "python":
            exec(text, {})
            continue
        for line in text.splitlines():
            name, *arguments = shlex.split(line, comments=True)
            assert name == "lfjax"
            done = lfjax(*arguments, cwd=tmp_path)
            assert done.code == 0, f"{line}\n{done.out}{done.err}"
