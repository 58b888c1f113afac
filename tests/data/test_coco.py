import json

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from segedu.data.coco import INSTANCES, Coco, CocoPanoptic, semantic_mask
from segedu.data.images import read_index
from segedu.data.sample import IGNORE
from segedu.data.splits import held_out
from segedu.errors import InputError

NAMES = [f"{number:012d}" for number in range(1, 9)]
TRAIN = [name for name in NAMES if not held_out(name, one_in=4)]
SQUARE = [[1, 1, 4, 1, 4, 3, 1, 3]]  # columns 1 to 3 of the rows 1 and 2
CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}]


def thing(name, segmentation, *, category=90, crowd=0):
    return {
        "image_id": int(name),
        "segmentation": segmentation,
        "category_id": category,
        "iscrowd": crowd,
    }


@pytest.fixture
def root(tmp_path, write_image):
    for name in NAMES:
        write_image(tmp_path / "images/train2017" / f"{name}.jpg", np.zeros((4, 6, 3)))
    corner = np.zeros((4, 6), dtype=np.uint8, order="F")
    corner[2:, 2:] = 1
    compressed = rle.encode(corner)
    compressed["counts"] = compressed["counts"].decode()
    right_column = {"size": [4, 6], "counts": [20, 4]}
    stored = {
        "images": [{"file_name": f"{name}.jpg"} for name in [*NAMES, "000000000099"]],
        "categories": CATEGORIES,
        "annotations": [
            thing(TRAIN[0], SQUARE, category=1),
            thing(TRAIN[0], compressed),
            thing(TRAIN[0], right_column, category=1, crowd=1),
            thing("000000000099", SQUARE),
        ],
    }
    (tmp_path / INSTANCES).parent.mkdir()
    (tmp_path / INSTANCES).write_text(json.dumps(stored))
    return tmp_path


def test_objects_are_polygons_or_run_lengths_of_both_kinds(root):
    sample = Coco(root)[0]
    masks = torch.zeros(3, 4, 6, dtype=torch.bool)
    masks[0, 1:3, 1:4] = masks[1, 2:, 2:] = masks[2, :, 5] = True
    assert sample["masks"].equal(masks)
    assert sample["boxes"].tolist() == [[1, 1, 4, 3], [2, 2, 6, 4], [5, 0, 6, 4]]
    assert sample["crowd"].tolist() == [False, False, True]


def test_run_lengths_of_another_size_are_refused_with_both_sizes(root):
    stored = json.loads((root / INSTANCES).read_text())
    stored["annotations"][2]["segmentation"]["size"] = [6, 4]
    (root / INSTANCES).write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"of size \[6, 4\]; expected \[4, 6\]"):
        Coco(root)[0]


def test_labels_count_the_categories_from_1_without_gaps(root):
    data = Coco(root)
    assert data[0]["labels"].tolist() == [1, 2, 1]
    assert data.classes == ("background", "person", "toothbrush")


def test_the_mask_shows_the_smaller_object_in_front_and_ignores_what_is_only_crowd(root):
    assert Coco(root)[0]["mask"].tolist() == [
        [0, 0, 0, 0, 0, IGNORE],
        [0, 1, 1, 1, 0, IGNORE],
        [0, 1, 1, 1, 2, 2],
        [0, 0, 2, 2, 2, 2],
    ]


def test_the_order_of_the_objects_does_not_matter_for_the_mask(root):
    sample = Coco(root)[0]
    backwards = semantic_mask(*(sample[key].flip(0) for key in ("masks", "labels", "crowd")))
    assert backwards.equal(sample["mask"])


def test_a_photograph_may_have_no_objects(root):
    sample = Coco(root)[1]
    assert sample["masks"].shape == (0, 4, 6)
    assert sample["boxes"].shape == (0, 4)
    assert sample["labels"].shape == sample["crowd"].shape == (0,)
    assert sample["labels"].dtype == torch.int64
    assert sample["crowd"].dtype == torch.bool
    assert sample["mask"].sum() == 0


def test_listed_photographs_that_are_not_there_are_left_out(root):
    train, val = Coco(root, "train"), Coco(root, "val")
    assert train.names == TRAIN
    assert sorted(train.names + val.names) == NAMES
    assert len(train) == len(TRAIN)


def test_without_annotations_the_message_says_how_to_get_them(tmp_path):
    with pytest.raises(InputError, match=r"json: no such file; `segedu data get coco`"):
        Coco(tmp_path)


def test_annotations_that_are_no_json_are_refused(root):
    (root / INSTANCES).write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        Coco(root)


@pytest.fixture
def panoptic(tmp_path, write_image):
    """Void, two persons, a crowd of persons, and grass, with ids that need all three colours."""
    ids = np.array([[0, 7, 7, 256], [65536 * 3 + 2, 9, 9, 256]])
    folder = tmp_path / "panoptic_segmentation" / "annotations"
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
    write_image(folder / "panoptic_train2017" / "000000000009.png", colours)
    write_image(tmp_path / "images/train2017/000000000009.jpg", np.zeros((2, 4, 3)))
    segments = [
        {"id": 7, "category_id": 1, "iscrowd": 0},
        {"id": 256, "category_id": 1, "iscrowd": 0},
        {"id": 9, "category_id": 1, "iscrowd": 1},
        {"id": 65536 * 3 + 2, "category_id": 193, "iscrowd": 0},
    ]
    stored = {
        "categories": [
            {"id": 193, "name": "grass", "isthing": 0},
            {"id": 1, "name": "person", "isthing": 1},
        ],
        "annotations": [
            {"file_name": "000000000009.png", "segments_info": segments},
            {"file_name": "000000000010.png", "segments_info": []},
        ],
    }
    (folder / "panoptic_train2017.json").write_text(json.dumps(stored))
    return tmp_path


def test_things_are_numbered_within_their_class_and_stuff_is_not(panoptic):
    data = CocoPanoptic(panoptic)
    assert len(data) == 1
    assert data.names == ["000000000009"]
    assert data.classes == ("background", "person", "grass")
    assert data.things == {1}
    sample = data[0]
    assert sample["panoptic"].tolist() == [[255, 1001, 1001, 1002], [2000, 255, 255, 1002]]
    assert sample["mask"].tolist() == [[255, 1, 1, 1], [2, 1, 1, 1]]


@pytest.mark.real
def test_real_objects_fit_their_annotated_boxes(real_root):
    data = Coco(real_root / "coco", "val")
    assert len(data.classes) == 81
    stored = json.loads((real_root / "coco" / INSTANCES).read_text())["annotations"]
    for index, name in enumerate(data.names[:5]):
        boxes = [thing["bbox"] for thing in stored if thing["image_id"] == int(name)]
        x, y, width, height = torch.tensor(boxes).T
        expected = torch.stack([x, y, x + width, y + height], dim=1)
        assert (data[index]["boxes"] - expected).abs().max() < 5


@pytest.mark.real
def test_the_panoptic_classes_are_those_of_the_semantic_masks(real_root):
    root = real_root / "coco"
    data = CocoPanoptic(root)
    assert len(data.classes) == 134
    assert data.things == set(range(1, 81))
    assert data.classes[:81] == Coco(root).classes
    for index, name in enumerate(data.names[:5]):
        stored = read_index(root / "semantic_segmentation/masks/train2017" / f"{name}.png")
        category = torch.zeros(256, dtype=torch.int64)
        for number, label in data._class_of.items():
            category[label] = number
        assert category[data[index]["mask"]].equal(stored.as_subclass(torch.Tensor))
