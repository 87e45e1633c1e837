"""The part of torchvision that topaz-em calls, for an environment made for topaz-em alone.

The distribution torchvision would bring another build of torch, with gigabytes of CUDA; Topaz needs three small
functions of it.
"""

from . import transforms as transforms
