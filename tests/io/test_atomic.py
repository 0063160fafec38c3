"""An interrupted write leaves nothing, and what was there before."""

import pytest

from lfjax.io import writing


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_interrupted_write_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), writing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_new_file_appears_only_when_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "a.ome.tif"
    with writing(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".tif"
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]
