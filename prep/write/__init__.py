"""Write the files of a store: ROI folders, shards, columns, checksums; imports `prep.derive` and what that imports."""
