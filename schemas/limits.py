"""Maximum sizes that a store or a source may claim.

A file that claims more is damaged or hostile; it is refused before memory is allocated.
"""

MAX_TILE_PX = 1 << 14
"""Maximum side of a tile in pixels."""

MAX_POINTS = 4096
"""Maximum positive or negative points of an object."""

MAX_CODE = 65535
"""Maximum class code: masks have up to 16 bits per pixel."""

MAX_FRAME_NUMBER = (1 << 31) - 1
"""Maximum number of a frame in its sequence, which a store keeps in 32 bits."""

MAX_ROWS = 1 << 28
"""Maximum number of tiles or objects: a million tiles with 256 objects each."""

MAX_SEGMENT_BYTES = 1 << 34
"""Maximum decoded size of the segments of one tile, one byte per pixel."""

MAX_CHUNK_BYTES = 1 << 30
"""Maximum decoded size of one chunk or shard; an image of the largest tile takes three quarters of it."""

MAX_FILE_BYTES = MAX_CHUNK_BYTES + (1 << 26)
"""Maximum size of a file that is read whole, and of an encoded chunk. Data that does not compress may become larger."""

MAX_COLUMN_NAME_BYTES = 4096
"""Maximum length of a name in a column in bytes: the longest path that Linux allows."""

MAX_ROI_PX = 1 << 29
"""Maximum pixels of a ROI: twice a 16k by 16k ROI. A file that claims more is treated as a decompression bomb."""

MAX_METADATA_BYTES = 64 << 20
"""Maximum decoded size of one piece of metadata in a PNG; the color profile of a slide takes about 15 MB."""
