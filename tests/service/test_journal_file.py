"""Records of a journal: read as they were written, half ones cut, damage and gaps refused."""

import pytest

from service.journal.journal_file import JournalError, packed, read_file

RECORDS = [({"kind": "note", "text": "ä\n"}, b""), ({"id": "m:1"}, b"\x00rec\n" * 9), ({}, b"x")]


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "00000001.journal"
    parts = [packed(5 + place, *each) for place, each in enumerate(RECORDS)]
    path.write_bytes(b"".join(parts))
    return path, [sum(map(len, parts[:count])) for count in range(len(parts) + 1)]


def test_records_are_read_as_they_were_written(journal):
    path, ends = journal
    records, end = read_file(path, 5, last=False)
    assert [(dict(each.fields), each.content()) for each in records] == RECORDS
    assert [each.number for each in records] == [5, 6, 7] and end == ends[-1] == path.stat().st_size


def test_whatever_was_cut_off_the_last_whole_records_are_read(journal):
    path, ends = journal
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        records, end = read_file(path, 5, last=True)
        count = max(number for number, each in enumerate(ends) if each <= size)
        assert (len(records), end) == (count, ends[count]), size


def test_zeros_at_the_end_are_a_record_that_was_not_written(journal):
    path, ends = journal
    path.write_bytes(path.read_bytes() + bytes(100))
    assert read_file(path, 5, last=True)[1] == ends[-1]


def test_damage_in_the_middle_is_refused_wherever_it_is(journal):
    path, ends = journal
    whole = path.read_bytes()
    for place in range(ends[2]):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(JournalError, match="is damaged at byte .* whole records follow it from byte"):
            read_file(path, 5, last=True)


def test_half_a_record_in_a_file_that_others_follow_is_refused(journal):
    path, _ = journal
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(JournalError, match="others follow the file"):
        read_file(path, 5, last=False)


def test_a_missing_record_is_refused(journal):
    path, ends = journal
    whole = path.read_bytes()
    path.write_bytes(whole[: ends[0]] + whole[ends[1] :])
    with pytest.raises(JournalError, match="record 6 is where record 5 should be"):
        read_file(path, 5, last=True)
    assert len(read_file(path, None, last=True)[0]) == 2  # picked out of other files


def test_content_that_has_changed_since_is_refused(journal):
    path, _ = journal
    records, _ = read_file(path, 5, last=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"y")
    with pytest.raises(JournalError, match="record 7 is damaged"):
        records[2].content()
