"""The files of a store: ROI folders, chunks, shards, columns, checksums; may import `prep.derive` and all below it."""
