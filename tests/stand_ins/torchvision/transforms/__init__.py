"""Geometric operations on images."""

from . import functional as functional
