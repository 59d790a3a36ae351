"""Every image is opened once, and not again while it is as it was."""

import os

import pytest
from image_samples import coloured, make_folder

from data.data_error import DataError
from data.images import image_sources
from data.images.image_dataset import read_image_dataset


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that are read."""
    names = []
    check = image_sources.check_image
    monkeypatch.setattr(image_sources, "check_image", lambda path: names.append(os.path.basename(path)) or check(path))
    return names


def test_a_file_that_has_not_changed_is_not_read_again(tmp_path, opened):
    folder = make_folder(tmp_path / "pets", {"cat": 3, "dog": 3})
    (folder / "cat" / "broken.png").write_bytes(b"hello")
    first = read_image_dataset(folder, cache=tmp_path / "cache")
    assert len(opened) == 7
    opened.clear()
    (file,) = (tmp_path / "cache").iterdir()
    written = file.stat().st_mtime_ns
    again = read_image_dataset(folder, cache=tmp_path / "cache")
    assert file.stat().st_mtime_ns == written, "nothing new was learned"
    assert opened == ["broken.png"], "what can't be opened is tried each time: it may have been mended elsewhere"
    assert (again.digest, again.digests, again.left_out) == (first.digest, first.digests, first.left_out)
    opened.clear()
    coloured(77).save(folder / "cat" / "1.png")
    os.utime(folder / "cat" / "1.png", (1, 1))
    changed = read_image_dataset(folder, cache=tmp_path / "cache")
    assert sorted(opened) == ["1.png", "broken.png"] and changed.digest != first.digest
    assert changed.digests[0] == first.digests[0] and changed.digests[1] != first.digests[1]
    opened.clear()
    read_image_dataset(folder)
    assert len(opened) == 7, "without a cache nothing is remembered"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1, "files": {"a": 3}}', b'{"version": 9}'])
def test_a_damaged_cache_is_made_anew(tmp_path, opened, content):
    folder = make_folder(tmp_path / "pets", {"cat": 2, "dog": 2})
    read_image_dataset(folder, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(content)
    opened.clear()
    assert len(read_image_dataset(folder, cache=tmp_path / "cache")) == 4 and len(opened) == 4
    opened.clear()
    read_image_dataset(folder, cache=tmp_path / "cache")
    assert not opened


def test_a_cache_that_cant_be_written_costs_nothing_but_time(tmp_path):
    folder = make_folder(tmp_path / "pets", {"cat": 2, "dog": 2})
    (tmp_path / "cache").write_text("a file")
    assert len(read_image_dataset(folder, cache=tmp_path / "cache")) == 4


def test_progress_is_told_and_an_interruption_keeps_what_was_done(tmp_path, opened):
    folder = make_folder(tmp_path / "pets", {"cat": 4, "dog": 4})
    told = []
    read_image_dataset(folder, progress=lambda done, of: told.append((done, of)))
    assert told == [(number, 8) for number in range(1, 9)]
    opened.clear()

    def stop(done, of):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_image_dataset(folder, cache=tmp_path / "cache", progress=stop)
    opened.clear()
    read_image_dataset(folder, cache=tmp_path / "cache")
    assert 0 < len(opened) <= 4, "the first four at least are remembered"


def test_an_image_that_is_gone_later_is_told(tmp_path):
    folder = make_folder(tmp_path, {"cat": 2, "dog": 2})
    dataset = read_image_dataset(folder)
    (folder / "cat" / "1.png").unlink()
    with pytest.raises(DataError, match=r"cat/1\.png can't be opened any more: No such file or directory"):
        dataset.image(1)
