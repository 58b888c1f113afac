"""DeepLab v1 with its large field of view, on VGG-16. Chapter 12 derives the dilation.

Source: Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected
CRFs", ICLR 2015, sections 3.1 and 3.2; the numbers of the large field of view are those of its
table 2. https://arxiv.org/abs/1412.7062
"""

from torch import nn

from segedu.models.fcn import OnDeepest
from segedu.models.vgg import vgg16

RATE = 12
"""Dilation of the first layer after VGG's convolutions, in places of stride 8."""
WIDTH = 1024
"""Channels of the two layers before the classes' scores; VGG has 4096."""


def deeplab_lfov_vgg16(num_classes: int) -> OnDeepest:
    """DeepLab-LargeFOV without its random field: 20.5 million weights. For images of any size.

    VGG-16 at output stride 8, then its first fully connected layer as a 3x3 convolution that is
    dilated by 12: it spans 25 places, as VGG's 7 x 7 kernel does when dilated by 4, with 9 weights
    for 49. The poolings are VGG's 2 x 2; the authors' own code made them 3 x 3.
    """
    head = nn.Sequential(
        nn.Conv2d(512, WIDTH, 3, padding=RATE, dilation=RATE),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Conv2d(WIDTH, WIDTH, 1),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Conv2d(WIDTH, num_classes, 1),
    )
    return OnDeepest(vgg16(output_stride=8), head)
