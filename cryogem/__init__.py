"""CryoGEM engine: micrographs that look like the user's own, with every particle, pose and CTF known."""

__version__ = '0.1.0'
