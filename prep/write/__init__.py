"""Write the files of a store: ROI folders, shards, columns, checksums; imports `prep.plan` and what that imports."""
