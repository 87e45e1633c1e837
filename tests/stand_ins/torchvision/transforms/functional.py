"""Rotations and reflections of the last two axes of a tensor."""

import math

import torch


def rotate(image: torch.Tensor, angle: float) -> torch.Tensor:
    """Return an image of (..., h, w) turned counter-clockwise about its middle by `angle` degrees.

    Nearest neighbours, and zeros from outside, as torchvision does unless told otherwise.
    """
    height, width = image.shape[-2:]
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # from output to input, in units of half the width and half the height
    turn = torch.tensor([[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]])
    stack = image.reshape(1, -1, height, width).float()
    grid = torch.nn.functional.affine_grid(turn[None], list(stack.shape), align_corners=False)
    turned = torch.nn.functional.grid_sample(stack, grid, mode='nearest', align_corners=False)
    return turned.reshape(image.shape).to(image.dtype)


def hflip(image: torch.Tensor) -> torch.Tensor:
    """Return the image with left and right exchanged."""
    return image.flip(-1)


def vflip(image: torch.Tensor) -> torch.Tensor:
    """Return the image with top and bottom exchanged."""
    return image.flip(-2)
