"""Draw synthetic sequences, whose objects drift, deform, hide and come back; imports `prep.sample`."""
