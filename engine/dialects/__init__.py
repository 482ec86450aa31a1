"""Foreign request shapes, one file each: pure mappings to and from `qvl.engine.protocol`."""
