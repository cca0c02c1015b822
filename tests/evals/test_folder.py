import shutil

import pytest

from geodino.data.labelled.image_folder import duplicates_across, find_suite
from geodino.errors import SourceError


def folder_of(root, **counts):
    """``{"wood": 3}`` makes wood/0.png .. wood/2.png, each with its own bytes."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.png").write_bytes(f"{root}/{name}/{i}".encode())
    return root


def test_a_plain_folder_is_split_per_class_by_the_share(tmp_path):
    suite = find_suite(folder_of(tmp_path, wood=10, water=20), test_share=0.3)
    assert suite.classes == ("water", "wood")
    assert [suite.test.labels.count(i) for i in (0, 1)] == [6, 3]
    assert [suite.train.labels.count(i) for i in (0, 1)] == [14, 7]
    assert not set(suite.train.paths) & set(suite.test.paths)
    assert suite.val is None
    assert suite.split == "30% of each class for testing, by a hash of the file names"
    for path, label in zip(suite.train.paths, suite.train.labels, strict=True):
        assert path.parent.name == suite.classes[label]


def test_the_split_depends_on_names_alone(tmp_path):
    first = find_suite(folder_of(tmp_path / "a", wood=10, water=20))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    second = find_suite(tmp_path / "b")
    assert first.fingerprint == second.fingerprint
    assert find_suite(tmp_path / "a", test_share=0.5).fingerprint != first.fingerprint


def test_every_class_is_on_both_sides_however_small(tmp_path):
    suite = find_suite(folder_of(tmp_path, few=2, many=50), test_share=0.01)
    assert suite.train.labels.count(0) == suite.test.labels.count(0) == 1
    suite = find_suite(tmp_path, test_share=0.99)
    assert suite.train.labels.count(0) == suite.train.labels.count(1) == 1


def test_a_given_split_is_taken_as_it_is(tmp_path):
    for part, count in {"train": 4, "val": 2, "test": 3}.items():
        folder_of(tmp_path / part, a=count, b=count)
    suite = find_suite(tmp_path)
    assert (len(suite.train), len(suite.val), len(suite.test)) == (8, 4, 6)
    assert suite.test.paths[0] == tmp_path / "test" / "a" / "0.png"
    assert suite.split == "as given by the folders train/, test/, val/ (tested on test/)"


def test_a_validation_part_alone_is_the_test_part(tmp_path):
    folder_of(tmp_path / "train", a=4, b=4)
    folder_of(tmp_path / "validation", a=2, b=1)
    suite = find_suite(tmp_path)
    assert suite.val is None
    assert len(suite.test) == 3
    assert "tested on validation/" in suite.split


def test_a_class_may_be_called_train(tmp_path):
    suite = find_suite(folder_of(tmp_path, train=4, bus=4))
    assert suite.classes == ("bus", "train")


def test_images_may_lie_deeper_and_other_files_are_counted(tmp_path):
    folder_of(tmp_path, a=2, b=2)
    (tmp_path / "a" / "2021").mkdir()
    (tmp_path / "a" / "2021" / "x.TIF").write_bytes(b"x")
    (tmp_path / "a" / "0.png.aux.xml").write_text("sidecar")
    (tmp_path / "a" / ".hidden.png").write_bytes(b"x")
    suite = find_suite(tmp_path)
    assert len(suite.train) + len(suite.test) == 5
    assert suite.ignored == 1


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({}, "has no class folders"),
        ({"wood": 3}, "has one class only"),
        ({"wood": 3, "water": 0}, "water holds no image"),
        ({"wood": 3, "water": 1}, "water has one image"),
    ],
)
def test_what_cannot_be_a_suite_is_refused_in_one_sentence(tmp_path, counts, sentence):
    with pytest.raises(SourceError, match=sentence):
        find_suite(folder_of(tmp_path, **counts))


def test_a_missing_folder_and_a_missing_test_part_are_refused(tmp_path):
    with pytest.raises(SourceError, match="is not a folder"):
        find_suite(tmp_path / "nowhere")
    folder_of(tmp_path / "train", a=4, b=4)
    with pytest.raises(SourceError, match="neither test/ nor val/"):
        find_suite(tmp_path)


def test_a_test_class_that_is_never_trained_on_is_refused(tmp_path):
    folder_of(tmp_path / "train", a=2, b=2)
    folder_of(tmp_path / "test", a=2, c=2)
    with pytest.raises(SourceError, match="has the class 'c'"):
        find_suite(tmp_path)


def test_the_same_picture_in_train_and_test_is_found(tmp_path):
    folder_of(tmp_path / "train", a=3, b=3)
    folder_of(tmp_path / "test", a=3, b=3)
    shutil.copy(tmp_path / "train" / "a" / "1.png", tmp_path / "test" / "b" / "2.png")
    suite = find_suite(tmp_path)
    assert duplicates_across(suite.train, suite.test) == [
        (tmp_path / "train" / "a" / "1.png", tmp_path / "test" / "b" / "2.png")
    ]
