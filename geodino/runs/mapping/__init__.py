"""What all maps of rasters share: planning, parts, memory, joining, and what they say of themselves."""
