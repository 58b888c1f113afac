import numpy as np
import pytest
import torch

from segedu.data.sample import IGNORE
from segedu.palette import VOID, class_colours, colour_mask, lookup_table

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", 2009, table 1, severity 1.0; in linear RGB.
DEFICIENCIES = {
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("deficiency", [None, *DEFICIENCIES])
def test_the_classes_of_the_scenes_keep_apart_for_colour_blind_readers(deficiency):
    from skimage.color import deltaE_ciede2000, rgb2lab

    linear = (class_colours(6) / 255) ** 2.2
    if deficiency:
        linear = (linear @ np.array(DEFICIENCIES[deficiency]).T).clip(0, 1)
    lab = rgb2lab((linear ** (1 / 2.2))[None])[0]
    apart = [deltaE_ciede2000(lab[i], lab[j]) for i in range(6) for j in range(i)]
    assert min(apart) > 10


def test_a_class_has_the_same_colour_however_many_there_are():
    assert (class_colours(21)[:6] == class_colours(6)).all()
    assert len({tuple(c) for c in class_colours(81).tolist()}) == 81


def test_void_is_white_and_a_class_has_its_colour():
    mask = torch.tensor([[0, 2], [IGNORE, 1]])
    picture = colour_mask(mask.numpy(), 3)
    assert tuple(picture[1, 0]) == VOID
    assert (picture[0, 1] == class_colours(3)[2]).all()
    assert lookup_table(3).shape == (256, 3)
