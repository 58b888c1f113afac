import torch
from torchvision import tv_tensors

from segedu.data.instances import boxes_around


def test_a_box_ends_after_the_last_pixel():
    masks = torch.zeros(2, 5, 7, dtype=torch.bool)
    masks[0, 1:3, 4] = True
    masks[1, 4, 6] = True
    boxes = boxes_around(masks)
    assert isinstance(boxes, tv_tensors.BoundingBoxes)
    assert boxes.tolist() == [[4, 1, 5, 3], [6, 4, 7, 5]]
    assert boxes.canvas_size == (5, 7)
    assert boxes.dtype == torch.float32


def test_the_area_of_a_full_box_is_the_number_of_pixels():
    boxes = boxes_around(torch.ones(1, 5, 7, dtype=torch.bool))
    assert boxes.tolist() == [[0, 0, 7, 5]]


def test_an_object_without_pixels_has_an_empty_box_and_no_object_no_box():
    assert boxes_around(torch.zeros(1, 5, 7, dtype=torch.bool)).tolist() == [[0, 0, 0, 0]]
    assert boxes_around(torch.zeros(0, 5, 7, dtype=torch.bool)).shape == (0, 4)
