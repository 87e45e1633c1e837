"""What the microscope does: CTF, ice, noise, grey scale, and how they are measured on real micrographs."""
