"""Open the store that an earlier build left at the destination, if the present plan would build the same store."""

from __future__ import annotations

from prep.changed_settings import changed_settings
from prep.files import sha256_of
from prep.place.destination import check_replaceable, occupied
from prep.plan import BuildPlan
from prep.write.checksums import check_sizes
from prep.write.roi_folder import recorded_digests
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
    difference = _difference(store, plan)
    if difference is not None:
        raise StoreError(location, f"was built from {difference}", "choose another --out, or give --overwrite")
    return store


def _difference(store: Store, plan: BuildPlan) -> str | None:
    """Say how a store differs from a plan; None if it does not.

    Cheap comparisons come first. Hashing the sources comes last.

    Raises:
        StoreError: A file of the store is missing or has another length.
    """
    manifest, settings = store.manifest, plan.config.model_dump(mode="json")
    if manifest.config_fingerprint != fingerprint(settings):
        return f"other settings ({changed_settings(manifest.config, settings)})"
    built = {source.frame_id: recorded_digests(source) for source in manifest.sources}
    only_one = sorted(built.keys() ^ {roi.frame_id for roi in plan.rois})
    if only_one:
        where = "the store" if only_one[0] in built else "the folder"
        return f"other ROIs ({len(only_one)} differ; {only_one[0]} is only in {where})"
    places = {source.frame_id: (source.sequence or "", source.frame_number) for source in manifest.sources}
    for roi in plan.rois:
        if roi.sequence and places[roi.frame_id] != (roi.sequence, roi.frame_number):
            return f"other frame numbers or sequences ({roi.frame_id} differs)"
    check_sizes(store)
    described = _described_otherwise(store, plan)
    if described is not None:
        return described
    held = dict(zip(store.column("tiles/patient").tolist(), store.column("tiles/split").tolist(), strict=True))
    for patient, split in held.items():
        if plan.splits.get(patient) != split:
            return f"other splits (patient {patient} was in {split} and would be in {plan.splits.get(patient)})"
    for roi in plan.rois:
        if len(roi.paths) != len(built[roi.frame_id]):
            return f"other files of {roi.frame_id}"
        for path, sha256 in zip(roi.paths, built[roi.frame_id], strict=True):
            if sha256_of(path) != sha256:
                return f"different content of {path}"
    return None


def _described_otherwise(store: Store, plan: BuildPlan) -> str | None:
    """Say which ROI has another patient, institution or resolution in a store than in a plan; None if none has."""
    mpp_um = {source.frame_id: source.mpp_um for source in store.manifest.sources}
    columns = [store.column(f"tiles/{name}").tolist() for name in ("frame_id", "patient", "institution")]
    known = {frame_id: (patient, institution) for frame_id, patient, institution in zip(*columns, strict=True)}
    for roi in plan.rois:
        if roi.mpp_um != mpp_um[roi.frame_id]:
            was, now = (f"{mpp} um per pixel" if mpp else "unknown" for mpp in (mpp_um[roi.frame_id], roi.mpp_um))
            return f"another resolution of {roi.frame_id} (it was {was} and would be {now})"
        # A ROI all of whose tiles were left out has no row.
        patient, institution = known.get(roi.frame_id, (roi.patient, roi.institution))
        if patient != roi.patient:
            return f"another patient of {roi.frame_id} (it was {patient} and would be {roi.patient})"
        if institution != roi.institution:
            return f"another institution of {roi.frame_id} (it was {institution} and would be {roi.institution})"
    return None
