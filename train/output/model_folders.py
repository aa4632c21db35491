"""Choose folder names for the answers of several models."""

from __future__ import annotations

from schemas.file_names import bounded_name


class ModelFolders:
    """Gives each model a folder name of its own.

    A model's name may be a path or begin with `baseline:`, so slashes and colons are replaced.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def __call__(self, model: str) -> str:
        """Return the folder name of a model, which is the same at each call."""
        if model not in self._names:
            # A name of dots alone would be the folder itself or the one above it.
            safe = model.replace("/", "_").replace(":", "_") if model.strip(".") else f"model{model}"
            plain = name = bounded_name(safe, "")
            number = 2
            while name in self._names.values():
                name, number = bounded_name(plain, f"_{number}"), number + 1
            self._names[model] = name
        return self._names[model]
