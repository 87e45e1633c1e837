"""Generated micrographs judged against real ones."""
