"""A build's working folder and destination, on disk or in a bucket; imports `prep.changed_settings` and `files`."""
