"""Files: images, STAR tables, checkpoints. Everything is written under a temporary name and renamed."""
