"""How large what a store or a source says of itself may be; beyond it is damage or malice, and nothing is allocated."""

MAX_TILE_PX = 1 << 14
MAX_POINTS = 4096
MAX_CODE = 65535
"""Of a class: masks have up to 16 bits a pixel."""

MAX_ROWS = 1 << 28
"""Tiles or objects: a million tiles with 256 objects each."""

MAX_SEGMENT_BYTES = 1 << 34
"""Of the segments of one tile, a byte a pixel."""

MAX_CHUNK_BYTES = 1 << 30
"""Decoded size of one chunk or shard: a tile of the largest size takes three quarters of it."""

MAX_FILE_BYTES = MAX_CHUNK_BYTES + (1 << 26)
"""Size of a file that is read whole, or of an encoded chunk; codecs may add a little to what they cannot compress."""

MAX_NAME_BYTES = 4096
"""Length of a name in a column: the longest path that Linux allows."""

MAX_ROI_PX = 1 << 29
"""Half a gigapixel: twice a 16k by 16k ROI. A file that claims more is taken for a decompression bomb."""
