"""Cloud-optimised GeoTIFFs in one pass: tiles are compressed once, spooled, and put in order.

:mod:`~geodino.io.cog.layout` cuts a map in blocks and supertiles, :mod:`~geodino.io.cog.parts`
takes their pixels (any shards, resumable), :mod:`~geodino.io.cog.assemble` writes the file.
"""
