"""COCO's average precision against pycocotools: 100 pictures of 100 detections, 20 objects."""

import contextlib
import copy
import io
from typing import Any

import numpy as np
import torch
from pycocotools import mask as peer
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segedu.data import rle
from segedu.metrics.instances import InstanceAP
from tests.benchmarks.timing import report

HEIGHT, WIDTH = 240, 320


def instance_ap_against_pycocotools() -> None:
    """One thread; from what a model and a data set give to the twelve numbers.

    Run lengths go to both as they are. Masks as pixels have to be encoded first for the peer.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for classes in (1, 5, 80):
        pictures = [drawn(np.random.default_rng(i), classes) for i in range(100)]
        for iou in ("mask", "box"):
            report(
                f"InstanceAP, {classes} classes, {iou} / pycocotools",
                lambda: ours(pictures, iou),  # noqa: B023 - called within the loop
                lambda: theirs(pictures, iou, classes),  # noqa: B023
                target=1.0,
                rounds=3,
            )
    dense = [[with_pixels(side) for side in picture] for picture in pictures]
    report(
        f"InstanceAP, {classes} classes, masks as pixels / pycocotools",
        lambda: ours(dense, "mask"),
        lambda: theirs([[encoded(side) for side in picture] for picture in dense], "mask", classes),
        target=1.0,
        rounds=3,
    )
    torch.set_num_threads(threads)


def ours(pictures: Any, iou: Any) -> dict[str, float]:
    metric = InstanceAP(iou)
    for detections, truth in pictures:
        metric.update(detections, truth)
    return metric.summary()


def theirs(pictures: Any, iou: str, classes: int) -> Any:
    objects = [
        {**thing, "area": peer.area(thing["segmentation"]), "iscrowd": 0, "id": n + 1}
        for n, thing in enumerate(listed(pictures, 1, "segmentation"))
    ]
    if iou == "box":
        for thing, box in zip(objects, listed(pictures, 1, "bbox"), strict=True):
            thing["bbox"] = box["bbox"]
    found = listed(pictures, 0, "bbox" if iou == "box" else "segmentation")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": n, "height": HEIGHT, "width": WIDTH} for n in range(len(pictures))],
            "annotations": objects,
            "categories": [{"id": label} for label in range(1, classes + 1)],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox" if iou == "box" else "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def listed(pictures: Any, side: int, kind: str) -> list[dict[str, Any]]:
    """The annotations of all pictures, as COCO's files list them."""
    return [
        {
            "image_id": image,
            "category_id": int(picture[side]["labels"][n]),
            "score": float(picture[side]["scores"][n]),
            kind: copy.copy(picture[side]["masks" if kind == "segmentation" else "corners"][n]),
        }
        for image, picture in enumerate(pictures)
        for n in range(len(picture[side]["labels"]))
    ]


def drawn(generator: np.random.Generator, classes: int) -> list[dict[str, Any]]:
    """20 ellipses, and 100 detections: half near one of them, half anywhere."""
    true = ellipses(generator, 20)
    labels = generator.integers(1, classes + 1, size=20)
    near = generator.integers(20, size=50)
    moved = true[near] + 2 * generator.normal(size=(50, 4))
    found = np.concatenate([moved, ellipses(generator, 50)])
    other = generator.integers(1, classes + 1, size=50)
    found_labels = np.concatenate([labels[near], other])
    return [
        picture_side(found, found_labels, generator.random(100)),
        picture_side(true, labels, np.ones(20)),
    ]


def ellipses(generator: np.random.Generator, count: int) -> np.ndarray:
    """Centre and half axes of each: row, column, down, right."""
    low, high = [0, 0, 6, 6], [HEIGHT, WIDTH, 50, 50]
    return generator.uniform(low, high, size=(count, 4))


def picture_side(shapes: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    masks = [
        peer.encode(np.asfortranarray(((rows - r) / a) ** 2 + ((columns - c) / b) ** 2 < 1, "u1"))
        for r, c, a, b in np.maximum(shapes, 1)
    ]
    corners = peer.toBbox(masks)
    boxes = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1)
    side = {"masks": masks, "boxes": boxes, "labels": labels, "scores": scores}
    return {**side, "corners": corners.tolist()}


def with_pixels(side: dict[str, Any]) -> dict[str, Any]:
    return {**side, "masks": np.stack([pixels_of(mask) for mask in side["masks"]])}


def pixels_of(mask: dict[str, Any]) -> np.ndarray:
    return rle.decode(rle.from_string(mask["counts"]), HEIGHT, WIDTH)


def encoded(side: dict[str, Any]) -> dict[str, Any]:
    return {**side, "masks": [peer.encode(np.asfortranarray(x, "u1")) for x in side["masks"]]}
