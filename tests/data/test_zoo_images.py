"""The committed image domains, the views, and building images anew."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.build_zoo_images import _added, main, need, quantise, sampled_domain
from data.data_error import DataError
from data.zoo_glyphs import SCRIPTS, glyph_domain
from data.zoo_images import IMAGES_PATH, POOLS, VIEWS, apply_view, load_domains, save_domains
from data.zoo_textures import TEXTURE_DOMAINS, _blocks, texture_domain


@pytest.fixture(scope="module")
def domains():
    return load_domains()


def test_committed_domains_have_classes_and_pools_for_source_and_target_tasks(domains):
    assert len(domains) >= 10
    assert {"digits", "mnist", "fashion", *SCRIPTS, *TEXTURE_DOMAINS} == set(domains)
    for domain in domains.values():
        assert 6 <= len(domain.source_classes) <= 10 < len(domain.class_names) + 1
        assert len(set(domain.class_names)) == len(domain.class_names)
        counts = np.zeros((len(domain.class_names), len(POOLS)), int)
        np.add.at(counts, (domain.labels, domain.pools), 1)
        held_out = [label for label in range(len(domain.class_names)) if label not in domain.source_classes]
        assert len(held_out) >= 2, domain.name
        assert counts[list(domain.source_classes)].min() >= 20, domain.name
        assert counts[held_out, :2].sum() == 0 and counts[held_out, 2:].min() >= 20, domain.name
        assert domain.about


def test_the_page_of_licences_names_every_domain_and_picture(domains):
    text = (Path(__file__).resolve().parents[2] / "docs" / "licences.md").read_text()
    rows = {cells[1].strip(): cells[2:] for line in text.splitlines() if len(cells := line.split("|")) > 4}
    total = sum(len(domain.images) for domain in domains.values())
    assert f"| {total:,} grey images of 12x12 pixels in 32 grey levels, {len(domains)} domains |" in text
    told = {name: int(cells[0].replace(",", "")) for names, cells in rows.items() for name in [names]
            if re.fullmatch(r" *[\d,]+ *", cells[0])}  # fmt: skip
    counted = {names: sum(len(domains[name].images) for name in re.findall(r"`(\w+)`", names)) for names in told}
    assert told == counted
    assert {name for names in told for name in re.findall(r"`(\w+)`", names)} == set(domains)
    pictures = text.split("## Pictures")[1].split("Without the pictures")[0]
    classes = {name for domain in ("materials", "photographs", "science") for name in TEXTURE_DOMAINS[domain]}
    assert set(re.findall(r"`(\w+)`", pictures)) == classes


def test_images_are_not_flat_and_pools_do_not_repeat_images(domains):
    for domain in domains.values():
        assert np.ptp(domain.images, axis=(1, 2)).mean() > 25, domain.name
        seen = [{image.tobytes() for image in domain.images[domain.pools == pool]} for pool in range(len(POOLS))]
        repeated = sum(len(seen[one] & seen[other]) for one in range(4) for other in range(one))
        assert repeated <= 0.01 * len(domain.images), domain.name  # flat patches of sky may look alike


def test_select_renumbers_classes_and_keeps_to_the_pool(domains):
    domain = domains["mnist"]
    chosen = domain.source_classes[2:4]
    images, labels = domain.select("source_test", chosen)
    assert set(labels) == {0, 1}
    rows = (domain.pools == 1) & (domain.labels == chosen[1])
    assert np.array_equal(images[labels == 1], domain.images[rows])
    with pytest.raises(DataError, match="no pool 'test'; allowed: source_train, source_test"):
        domain.select("test")
    with pytest.raises(DataError, match=r"classes 0 to 9, not \[10\]"):
        domain.select("source_test", (1, 10))


@pytest.mark.parametrize("view", VIEWS)
def test_view_is_deterministic_keeps_the_format_and_changes_pixels(view, domains):
    images = domains["greek"].images[:50]
    shown = apply_view(images, view)
    assert shown.shape == images.shape and shown.dtype == np.uint8
    assert np.array_equal(shown, apply_view(images.copy(), view))
    assert np.array_equal(shown, images) == (view == "plain")


def test_views_do_what_they_say(domains):
    images = domains["fashion"].images[:200]
    assert np.array_equal(apply_view(images, "inverted"), 255 - images)
    assert np.array_equal(apply_view(images, "rotated")[:, 0, 0], images[:, 0, -1])
    permuted = apply_view(images, "permuted")
    assert np.array_equal(np.sort(permuted.reshape(200, -1)), np.sort(images.reshape(200, -1)))
    grey = np.full((1, 12, 12), 130, np.uint8)
    assert np.array_equal(apply_view(grey, "blurred"), grey)
    noise = apply_view(np.repeat(grey, 100, axis=0), "noisy").astype(float) - 130
    assert abs(noise.mean()) < 2 and 40 < noise.std() < 50
    other = apply_view(np.repeat(grey + 1, 100, axis=0), "noisy").astype(float) - 131
    assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.05, "each set of images has noise of its own"
    with pytest.raises(DataError, match="no view 'upside_down'; allowed: plain, rotated"):
        apply_view(images, "upside_down")


def test_domains_survive_a_round_trip(tmp_path, domains):
    path = tmp_path / "images.npz"
    save_domains({"hebrew": domains["hebrew"]}, path)
    (again,) = load_domains(path).values()
    assert np.array_equal(again.images, domains["hebrew"].images)
    assert again.class_names == domains["hebrew"].class_names
    assert again.source_classes == domains["hebrew"].source_classes


def test_missing_truncated_and_foreign_image_files_are_refused(tmp_path):
    path = tmp_path / "images.npz"
    with pytest.raises(DataError, match=r"there is no image file .*git checkout data/zoo"):
        load_domains(path)
    for content in (b"", b"no zip", IMAGES_PATH.read_bytes()[:5000]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot read the images of"):
            load_domains(path)
    np.savez(path, **{"mine/images": np.zeros((3, 12, 12), np.uint8)})
    with pytest.raises(DataError, match="domain mine lacks the array 'mine/labels'"):
        load_domains(path)
    np.savez(path, **{"mine/images": np.array([{}], dtype=object)})  # would be unpickled
    with pytest.raises(DataError, match="cannot read the images of"):
        load_domains(path)


def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path):
    path = tmp_path / "images.npz"
    arrays = dict(
        images=np.zeros((3, 12, 12), np.uint8), labels=[0, 1, 2], pools=[0, 1, 2], class_names=["a", "b"],
        source_classes=[0, 1], about="mine",
    )  # fmt: skip
    np.savez(path, **{f"mine/{name}": array for name, array in arrays.items()})
    with pytest.raises(DataError, match=r"domain mine don't fit each other.*2 classes"):
        load_domains(path)


def test_sampled_domain_splits_every_class_without_overlap():
    images = np.random.default_rng(0).integers(0, 256, (400, 24, 24)).astype(np.uint8)
    domain = sampled_domain("mine", images, np.arange(400) % 4, list("abcd"), 2, "test")
    assert len(domain.source_classes) == 2 and domain.images.shape[1:] == (12, 12)
    for label in range(4):
        pools = set(domain.pools[domain.labels == label].tolist())
        assert pools == ({0, 1, 2, 3} if label in domain.source_classes else {2, 3})
    assert len({image.tobytes() for image in domain.images}) == len(domain.images)
    with pytest.raises(DataError, match="class d has 7 images; at least 8"):
        sampled_domain("mine", images[:31], np.arange(31) % 4, list("abcd"), 2, "test")


def test_quantise_keeps_black_white_and_32_levels():
    levels = quantise(np.arange(256, dtype=np.uint8))
    assert len(set(levels.tolist())) == 32 and levels[0] == 0 and levels[-1] == 255
    assert np.abs(levels.astype(int) - np.arange(256)).max() <= 5


def test_rebuilt_glyphs_and_textures_are_the_committed_ones(domains):
    rebuilt = {"hebrew": glyph_domain("hebrew", 12), "terrain": texture_domain("terrain", 12, need)}
    for name, domain in rebuilt.items():
        committed = domains[name]
        assert domain.class_names == committed.class_names and domain.source_classes == committed.source_classes
        assert np.array_equal(domain.labels, committed.labels) and np.array_equal(domain.pools, committed.pools)
        # Other versions of the font and image libraries may round a grey level differently.
        difference = np.abs(quantise(domain.images).astype(int) - committed.images.astype(int))
        assert difference.mean() < 2, name


def test_texture_pools_share_no_pixel():
    region = np.arange(64 * 64).reshape(64, 64)
    areas = [set(np.concatenate([block.ravel() for block in _blocks(region, pool)]).tolist()) for pool in range(4)]
    assert sum(map(len, areas)) == len(set.union(*areas)) == 64 * 64


def test_missing_extras_name_the_package_and_the_command(tmp_path):
    with pytest.raises(DataError, match=r"needs the package mlxtend .*pip install -r requirements-zoo.txt"):
        need("no_such_module_here", "mlxtend")


def test_missing_folder_of_the_user_ends_in_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr("data.build_zoo_images._digits", lambda: None)
    monkeypatch.setattr("data.build_zoo_images._mnist", lambda: None)
    from data.build_zoo_images import build_domains

    with pytest.raises(DataError, match=r"apt-get install dataset-fashion-mnist.*--fashion FOLDER"):
        list(build_domains(tmp_path / "nowhere"))
    with pytest.raises(SystemExit):
        main(["--fashion"])


def test_a_folder_of_the_user_s_own_becomes_a_domain(tmp_path):
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        for number in range(10):
            grey = np.full((20, 16), 10 * number, np.uint8)
            grey[:, : 8 if name == "left" else 4] = 255
            Image.fromarray(grey).save(tmp_path / name / f"{number}.png")
    domain = _added(f"sides={tmp_path}")
    assert domain.name == "sides" and domain.class_names == ("left", "right") and domain.source_classes == (0, 1)
    images, labels = domain.select("source_train")
    assert images.shape[1:] == (12, 12) and set(labels) == {0, 1} and len(images) >= 10
    for spec in ("sides", f"two words={tmp_path}", f"={tmp_path}"):
        with pytest.raises(DataError, match="give NAME=FOLDER"):
            _added(spec)
