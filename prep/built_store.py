"""The store that an earlier build left at the destination, if it is what would be built now."""

from __future__ import annotations

from prep.files import sha256_of
from prep.place.destination import check_replaceable, occupied
from prep.plan import BuildPlan
from prep.write.checksums import check_sizes
from schemas.errors import StoreError
from schemas.manifest import fingerprint
from schemas.store.store import Store, open_store


def built_store(location: str, plan: BuildPlan) -> Store | None:
    """Open the store at a location.

    Args:
        location: The path or URL.
        plan: What would be built there.

    Returns:
        The store that the plan would build; None if nothing is there.

    Raises:
        StoreError: Something else is there, or a store that cannot be read or was built from another plan.
    """
    if not occupied(location):
        return None
    try:
        store = open_store(location)
    except StoreError as error:
        check_replaceable(location)
        _, what, _ = error.args
        raise StoreError(location, what, "choose another --out, or give --overwrite") from error
    if not _is_built_from(store, plan):
        raise StoreError(
            location, "was built from other sources or settings", "choose another --out, or give --overwrite"
        )
    return store


def _is_built_from(store: Store, plan: BuildPlan) -> bool:
    """Compare a store with a plan; the cheap comparisons come first, and the sources are hashed last.

    Raises:
        StoreError: A file of the store is missing or has another length.
    """
    manifest = store.manifest
    if manifest.config_fingerprint != fingerprint(plan.config.model_dump(mode="json")):
        return False
    built = {source.frame_id: (source.image_sha256, source.mask_sha256) for source in manifest.sources}
    if built.keys() != {roi.frame_id for roi in plan.rois}:
        return False
    check_sizes(store)
    held = dict(zip(store.column("tiles/patient").tolist(), store.column("tiles/split").tolist(), strict=True))
    if any(plan.splits.get(patient) != split for patient, split in held.items()):
        return False
    return all((sha256_of(roi.image_path), sha256_of(roi.mask_path)) == built[roi.frame_id] for roi in plan.rois)
