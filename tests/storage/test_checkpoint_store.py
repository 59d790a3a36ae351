"""Which checkpoints are kept, and which are read. tests/train has what damage, kills and full disks do to them."""

import pytest
import torch

from storage.checkpoint_store import Checkpoint, CheckpointStore
from storage.errors import ResumeError


def checkpoint(value: float) -> Checkpoint:
    return Checkpoint({"w": torch.full((3,), value)}, {"epoch": value, "optimizer": {"m": torch.ones(2) * value}})


def test_store_keeps_the_newest_and_the_best(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=2)
    for epoch in range(1, 7):
        store.save(epoch, checkpoint(epoch), best_epoch=min(epoch, 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-00002", "epoch-00005", "epoch-00006"]
    newest, path = store.load_newest()
    assert path.name == "epoch-00006"
    assert torch.equal(newest.weights["w"], torch.full((3,), 6.0))
    assert torch.equal(newest.state["optimizer"]["m"], torch.full((2,), 6.0))


@pytest.mark.parametrize("name", ["weights.safetensors", "state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_any_damage_is_noticed_and_the_older_one_is_used(tmp_path, name, damage):
    store = CheckpointStore(tmp_path, keep_last=2)
    store.save(1, checkpoint(1.0), 1)
    store.save(2, checkpoint(2.0), 1)
    path = tmp_path / "epoch-00002" / name
    content = path.read_bytes()
    flipped = bytes([content[0] ^ 0x40]) + content[1:]
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"flip": flipped, "cut": content[: len(content) // 2], "empty": b""}[damage])
    assert store.load_newest()[1].name == "epoch-00001"


def test_no_whole_checkpoint_is_an_error_and_none_at_all_is_a_beginning(tmp_path):
    store = CheckpointStore(tmp_path, 1)
    assert store.load_newest() is None
    (store.save(1, checkpoint(1.0), 1) / "state.json").unlink()
    with pytest.raises(ResumeError, match="no usable checkpoint in .* Start the run again without --resume"):
        store.load_newest()
