"""The source folder: find ROIs, read class maps, divide patients; imports `schemas`, `prep.files`."""
