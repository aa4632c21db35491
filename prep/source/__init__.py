"""The source folder: find ROIs, decode files, read class maps, divide patients; imports `schemas`, `prep.files`."""
