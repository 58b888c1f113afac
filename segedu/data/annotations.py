"""Objects written as COCO writes them: JSON that pycocotools and annotation tools read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from segedu.data import rle


@dataclass(frozen=True)
class Objects:
    """The N objects found in one picture.

    Attributes:
        file_name: Of the picture.
        boxes: (N, 4) XYXY in pixels.
        labels: (N,) class index, from 1.
        scores: (N,) in [0, 1].
        masks: (N, H, W) bool.
    """

    file_name: str
    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, " n"]
    scores: Float[Tensor, " n"]
    masks: Bool[Tensor, "n h w"]


def coco_json(pictures: Iterable[Objects], classes: Sequence[str]) -> dict[str, Any]:
    """A data set in COCO's layout: `images`, `categories` and `annotations` with scores.

    `pycocotools.coco.COCO` reads the whole as truth, and its `loadRes` the list of annotations as
    results. Category ids are class indices; pictures are numbered from 1 in their order.

    Args:
        pictures: With what was found in each.
        classes: The name of each class index; class 0, the background, is no category.

    Source: https://cocodataset.org/#format-data and #format-results.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, start=1):
        height, width = picture.masks.shape[1:]
        images.append(
            {"id": number, "file_name": picture.file_name, "height": height, "width": width}
        )
        for n in range(len(picture.labels)):
            found = {"id": len(annotations) + 1, "image_id": number, **_annotation(picture, n)}
            annotations.append(found)
    categories = [{"id": i, "name": name} for i, name in enumerate(classes) if i > 0]
    return {"images": images, "categories": categories, "annotations": annotations}


def _annotation(picture: Objects, n: int) -> Mapping[str, Any]:
    """What is said of the n-th object of a picture."""
    mask = picture.masks[n].numpy()
    x1, y1, x2, y2 = picture.boxes[n].tolist()
    return {
        "category_id": int(picture.labels[n]),
        "bbox": [round(number, 2) for number in (x1, y1, x2 - x1, y2 - y1)],
        "area": int(np.count_nonzero(mask)),
        "segmentation": {"size": list(mask.shape), "counts": rle.to_string(rle.encode(mask))},
        "iscrowd": 0,
        "score": round(float(picture.scores[n]), 4),
    }
