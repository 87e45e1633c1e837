"""Tests of the plugin in real Scipion projects; they run under pytest and by `python -m scipion tests`."""
