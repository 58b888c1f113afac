"""pycocotools' COCOeval, fed with what `InstanceAP.update` takes."""

import contextlib
import io

import numpy as np
from pycocotools import mask as peer
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

KINDS = {"mask": "segm", "box": "bbox"}


def coco_eval(pictures, iou, classes=range(1, 91)):
    """A COCOeval that has evaluated and accumulated pairs of detections and truth."""
    objects, found = [], []
    for image, (detections, truth) in enumerate(pictures, start=1):
        for n, label in enumerate(truth["labels"]):
            objects.append(
                {
                    **region(truth, n, iou),
                    "id": len(objects) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "iscrowd": int(truth["iscrowd"][n]) if "iscrowd" in truth else 0,
                }
            )
            objects[-1]["area"] = float(
                truth["area"][n] if "area" in truth else area(objects[-1], iou)
            )
        found += [
            {
                **region(detections, n, iou),
                "image_id": image,
                "category_id": int(label),
                "score": float(detections["scores"][n]),
            }
            for n, label in enumerate(detections["labels"])
        ]
    images = [{"id": n + 1, "height": 1, "width": 1} for n in range(len(pictures))]  # not looked at
    categories = [{"id": label} for label in classes]
    with contextlib.redirect_stdout(io.StringIO()):
        true = dataset(images, categories, objects)
        results = true.loadRes(found) if found else dataset(images, categories, [])
        evaluation = COCOeval(true, results, KINDS[iou])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def dataset(images, categories, annotations):
    coco = COCO()
    coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
    coco.createIndex()
    return coco


def region(entries, n, iou):
    """The n-th mask as run lengths, or the n-th box as corner and sides."""
    if iou == "box":
        x1, y1, x2, y2 = (float(x) for x in entries["boxes"][n])
        return {"bbox": [x1, y1, x2 - x1, y2 - y1]}
    mask = entries["masks"][n]
    if not isinstance(mask, dict):
        mask = peer.encode(np.asfortranarray(np.asarray(mask), dtype=np.uint8))
    return {"segmentation": mask}


def area(annotation, iou):
    if iou == "box":
        return annotation["bbox"][2] * annotation["bbox"][3]
    return peer.area(annotation["segmentation"])
