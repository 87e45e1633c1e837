"""The folder of a simulate or generate run: written whole, file by file, and read back."""
