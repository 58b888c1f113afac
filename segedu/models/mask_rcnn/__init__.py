"""Mask R-CNN from its parts: chapters 16 to 18.

Boxes are (..., 4) tensors, XYXY in pixels; (0, 0) is the outer corner of the top-left pixel.
Functions have the names, arguments and meaning of their peers in torchvision.
"""
