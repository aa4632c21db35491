"""Write a store's files: ROI folders, shards, columns; imports `prep.derive`, `files`, `parallel`, `plan` and below."""
