"""Fully convolutional networks: a classifier that answers at each place. Chapter 09 builds them.

Source: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR
2015. https://arxiv.org/abs/1411.4038. `fcn_resnet50` and `fcn_resnet101` are torchvision's: a
dilated ResNet, two convolutions, and an eightfold enlargement.
"""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from segedu.models.layers import Backbone, conv_norm_relu, enlarged
from segedu.models.resnet import resnet50, resnet101


class OnDeepest(nn.Module):
    """Class scores from the deepest features of a backbone, enlarged to the image's size.

    Args:
        backbone: Gives features of an image in [0, 1] by stride.
        classifier: From those features to logits.
    """

    def __init__(self, backbone: Backbone, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """Class scores (logits), at the image's resolution."""
        features = self.backbone(image)
        return enlarged(self.classifier(features[max(features)]), image)


def fcn_resnet50(num_classes: int) -> OnDeepest:
    """FCN on a ResNet-50 of output stride 8; 33 million weights. For images of any size."""
    return OnDeepest(resnet50(output_stride=8), fcn_head(2048, num_classes))


def fcn_resnet101(num_classes: int) -> OnDeepest:
    """FCN on a ResNet-101 of output stride 8; 52 million weights. For images of any size."""
    return OnDeepest(resnet101(output_stride=8), fcn_head(2048, num_classes))


def fcn_head(in_channels: int, num_classes: int) -> nn.Sequential:
    """A 3x3 convolution to a quarter of the channels, then the classes' scores."""
    width = in_channels // 4
    return nn.Sequential(
        *conv_norm_relu(in_channels, width), nn.Dropout(0.1), nn.Conv2d(width, num_classes, 1)
    )


def from_peer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of torchvision's segmentation model; its auxiliary classifier is left out."""
    return {name: value for name, value in state.items() if not name.startswith("aux_classifier.")}
