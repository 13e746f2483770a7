"""Shapes of regions: from masks to polygons and back, repaired, cut, turned."""
