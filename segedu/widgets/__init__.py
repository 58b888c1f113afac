"""Figures with sliders: for each a plain function that draws it, and one that puts controls around.

`plot_X(settings)` draws a still figure, as a chapter shows it where no widget can run, and as tests
look at it. `explore_X()` gives the same figure with controls, redrawn whenever one is moved.
"""

from segedu.widgets.anchors import explore_anchors, plot_anchors
from segedu.widgets.context import explore_touched, plot_touched
from segedu.widgets.controls import explorer
from segedu.widgets.convolutions import (
    explore_convolution_step,
    explore_receptive_field,
    plot_convolution_step,
    plot_receptive_field,
)
from segedu.widgets.losses import explore_four_pixels, plot_four_pixels
from segedu.widgets.overlap import explore_overlap, plot_overlap
from segedu.widgets.precision_recall import explore_precision_recall, plot_precision_recall
from segedu.widgets.sampling import explore_samples, plot_samples
from segedu.widgets.suppression import explore_nms, plot_nms
from segedu.widgets.thresholds import explore_threshold, plot_threshold

__all__ = [
    "explore_anchors",
    "explore_convolution_step",
    "explore_four_pixels",
    "explore_nms",
    "explore_overlap",
    "explore_precision_recall",
    "explore_receptive_field",
    "explore_samples",
    "explore_threshold",
    "explore_touched",
    "explorer",
    "plot_anchors",
    "plot_convolution_step",
    "plot_four_pixels",
    "plot_nms",
    "plot_overlap",
    "plot_precision_recall",
    "plot_receptive_field",
    "plot_samples",
    "plot_threshold",
    "plot_touched",
]
