"""What is learned: generators, their training, model folders and published checkpoints."""

from cryogem.translation.model import load_generator

__all__ = ['load_generator']
