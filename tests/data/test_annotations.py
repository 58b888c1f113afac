import json

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segedu.data.annotations import Objects, coco_json
from segedu.data.scenes import CLASSES, Scenes


def found_in(scene, name):
    """The scene's own objects, each a little less sure than the one before."""
    count = len(scene["labels"])
    return Objects(
        name,
        scene["boxes"].as_subclass(torch.Tensor),
        scene["labels"],
        1 - 0.1 * torch.arange(count),
        scene["masks"].as_subclass(torch.Tensor),
    )


@pytest.fixture
def scenes():
    return [Scenes(3, size=48, seed=5)[i] for i in range(3)]


@pytest.fixture
def written(scenes, tmp_path):
    """The objects of three scenes in a file."""
    path = tmp_path / "objects.json"
    objects = [found_in(scene, f"{i}.png") for i, scene in enumerate(scenes)]
    path.write_text(json.dumps(coco_json(objects, CLASSES)))
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pycocotools' own, with NumPy 2
def test_pycocotools_reads_the_masks_back(scenes, written):
    read = COCO(written)
    assert [category["name"] for category in read.loadCats(read.getCatIds())] == list(CLASSES[1:])
    for image_id, scene in zip(read.getImgIds(), scenes, strict=True):
        anns = read.loadAnns(read.getAnnIds(image_id))
        assert [ann["category_id"] for ann in anns] == scene["labels"].tolist()
        masks = np.stack([read.annToMask(ann) for ann in anns])
        assert np.array_equal(masks, scene["masks"].numpy())
        for ann, mask in zip(anns, masks, strict=True):
            x, y, width, height = ann["bbox"]
            rows, columns = np.nonzero(mask)
            assert (x, y) == (columns.min(), rows.min())
            assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
            assert ann["area"] == mask.sum()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_its_annotations_are_results_that_score_1_against_themselves(written):
    truth = COCO(written)
    results = truth.loadRes(json.loads(written.read_text())["annotations"])
    scores = COCOeval(truth, results, "segm")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    assert scores.stats[0] == pytest.approx(1)
    assert results.anns[2]["score"] < results.anns[1]["score"]


def test_a_picture_without_an_object_is_still_an_image():
    nothing = Objects(
        "empty.png", torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0),
        torch.zeros(0, 5, 7, dtype=torch.bool),
    )  # fmt: skip
    assert coco_json([nothing], CLASSES)["images"] == [
        {"id": 1, "file_name": "empty.png", "height": 5, "width": 7}
    ]
    assert coco_json([nothing], CLASSES)["annotations"] == []
