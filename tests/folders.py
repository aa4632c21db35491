"""Read the content of a folder, for tests that compare stores byte by byte."""

from pathlib import Path


def bytes_of(folder: Path | str) -> dict[str, bytes]:
    """Return the bytes of all files in a folder, by the path within it."""
    root = Path(folder)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
