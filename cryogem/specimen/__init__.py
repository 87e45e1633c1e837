"""The virtual specimen: maps, orientations, projections, placement, one painted micrograph."""
