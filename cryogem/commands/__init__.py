"""One module per command: `run(config, output)` tells its story from inputs to files."""
