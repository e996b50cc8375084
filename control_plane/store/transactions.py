"""The verbs that change desired state, each once for every store.

A verb is a pure function of a `Transaction`: it reads what the store held at one revision, decides,
notes its writes and returns its answer. The store commits the writes if that revision still stands,
else it runs the verb again. `WriteVerbs` makes these functions the methods of a registry.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from control_plane.store.registry import REQUEST_ID_KEPT_S
from control_plane.store.transaction import ImportJob, Transaction
from control_plane.types import lifecycle
from control_plane.types.access.api_key import ApiKey
from control_plane.types.access.tenant import Tenant
from control_plane.types.desired import Want
from control_plane.types.lease import FencingToken
from control_plane.types.rollout.alias import naming
from control_plane.types.schedule import Schedule
from control_plane.types.version import (
    Drift,
    Imported,
    ModelVersion,
    Pack,
    ServedBuild,
    ServingSpec,
    VersionKey,
    VersionSettings,
    VersionState,
    builds_of,
)
from yolopool.errors import ImportNotYours, InvalidOption, ModelReferenced
from yolopool.names import build_name

PENDING = (VersionState.UPLOADED, VersionState.IMPORTING)  # these have a job, or are fetched

# --- models -------------------------------------------------------------------------------


def register(
    tx: Transaction,
    name: str,
    artifact: str,
    settings: VersionSettings,
    source_name: str,
    request_id: str,
    now: float,
    given: ServingSpec,
    imported: Imported | None,
    above: int,
    number: int,
) -> ModelVersion:
    # The next key as the caller knows it, which is mostly the next one.
    next_one = VersionKey(name, max(number, above + 1))
    tx.expect(versions=[next_one], numbers=[name], request_id=request_id)
    made = tx.request(request_id) if request_id else None
    old = tx.version(made) if made is not None else None
    # One that another model was registered with tells nothing of that.
    if old is not None and old.key.model == name and now - old.created_unix_s < REQUEST_ID_KEPT_S:
        return old
    key = _free(tx, name, max(number, tx.number(name) + 1, above + 1))
    if number and key.number != number:
        raise InvalidOption(
            f"{name} can't have version {number}: the next is {key.number}, and no number is given "
            "twice"
        )
    version = ModelVersion(
        key,
        VersionState.UPLOADED,
        artifact,
        settings,
        now,
        source_name,
        asked=settings,
        given=given,
    )
    if imported is not None:
        version = lifecycle.adopted(version, *imported)
    elif artifact:  # else it is fetched first
        tx.put_job(key, ImportJob(tx.revision))
    tx.put_number(name, key.number)
    tx.put_version(version)
    if request_id:
        tx.put_request(request_id, key)
    return version


def _free(tx: Transaction, name: str, number: int) -> VersionKey:
    """The first key from `number` on that no version has: a version is never replaced."""
    while tx.version(VersionKey(name, number)) is not None:
        number += 1
    return VersionKey(name, number)


def add_build(tx: Transaction, build: ModelVersion) -> ModelVersion | None:
    of = build.given.build_of
    tx.expect(versions=[build.key] if of is None else [build.key, of])
    if of is None or tx.version(of) is None:
        return None
    old = tx.version(build.key)
    if old is not None and old.stands_for(build):
        return old
    tx.put_version(build)
    if build.state is VersionState.UPLOADED:
        tx.put_job(build.key, ImportJob(tx.revision))
    else:
        tx.drop_job(build.key)  # an importer may be at work on the row that this one replaces
    return build


def set_given(
    tx: Transaction, key: VersionKey, change: Callable[[ServingSpec], ServingSpec]
) -> ModelVersion | None:
    """Changes how a version is kept, placed, batched or served."""
    version = tx.version(key)
    if version is None:
        return None
    given = change(version.given)
    if given == version.given:
        return version
    return tx.put_version(replace(version, given=given))


def set_served(
    tx: Transaction,
    key: VersionKey,
    device_kind: str,
    served: ServedBuild | None,
    drift: Drift | None,
) -> ModelVersion | None:
    """Comparisons are merged here, so that of two at a time both count. The build's own row keeps
    them too, for the time when another build serves.
    """
    if served is None:
        return set_given(tx, key, lambda given: given.served_by(device_kind, None))
    name = build_name(key.model, served.backend, served.precision, device_kind)
    build = VersionKey(name, key.number)
    tx.expect(versions=[key, build])
    version, row = tx.version(key), tx.version(build)
    if version is None:
        return None
    same = row is not None and row.pack == served.pack
    own = row.given.served.get(device_kind) if row is not None and same else None
    new = served.recalling(version.given.served.get(device_kind))
    if own is not None:
        new = new.recalling(replace(own, pack=served.pack))
    if drift is not None:
        new = new.compared(drift)
    if own is not None:
        kept = replace(own, drift=new.drift, checks=new.checks)
        set_given(tx, build, lambda given: given.served_by(device_kind, kept))
    return set_given(tx, key, lambda given: given.served_by(device_kind, new))


def delete(tx: Transaction, keys: Sequence[VersionKey]) -> tuple[VersionKey, ...]:
    named = tuple(dict.fromkeys([*keys, *(build for key in keys for build in builds_of(key))]))
    tx.expect(versions=named, wants=named, aliases=True)
    needed = sorted({str(alias) for key in named for alias in naming(tx.aliases(), key)})
    if needed:
        raise ModelReferenced(
            f"it is needed by alias {', '.join(needed)}: move or delete that first"
        )
    present = tuple(key for key in named if tx.version(key) is not None)
    for key in present:
        tx.drop_version(key)
        tx.drop_job(key)
        if tx.want(key) is not None:
            tx.drop_want(key)
    return present


def cordon(tx: Transaction, worker_id: str, incarnation: str) -> None:
    if tx.cordon(worker_id) != incarnation:
        tx.put_cordon(worker_id, incarnation)


# --- wants --------------------------------------------------------------------------------


def want(tx: Transaction, asked: Want) -> Want | None:
    tx.expect(versions=[asked.key], wants=[asked.key])
    if tx.version(asked.key) is None:
        return None
    old = tx.want(asked.key)
    new = asked.following(old)
    if new != old:
        tx.put_want(new)
    return new


def renew(tx: Transaction, key: VersionKey, since_unix_s: float) -> Want | None:
    old = tx.want(key)
    if old is None:
        return None
    new = replace(old, since_unix_s=since_unix_s)
    if new != old:
        tx.put_want(new)
    return new


def forget(tx: Transaction, key: VersionKey, token: FencingToken | None, left: int) -> bool:
    old = tx.want(key)
    is_plan = token is not None
    if old is None or (is_plan and old.pinned):
        return False
    if not left:
        tx.drop_want(key)
    elif left < old.replicas:
        tx.put_want(replace(old, replicas=left))
    return True


def change_wants(
    tx: Transaction,
    put: Sequence[Want],
    drop: Sequence[VersionKey],
    end_standby: Sequence[VersionKey],
) -> tuple[Want, ...]:
    asked = [new.key for new in put]
    tx.expect(versions=[*asked, *end_standby], wants=[*asked, *drop])
    new = {want.key: want for want in put if tx.version(want.key) is not None}
    old = {key: tx.want(key) for key in dict.fromkeys([*new, *drop])}
    for key, held in old.items():
        if key not in new:
            if held is not None:
                tx.drop_want(key)
        elif new[key] != held:
            tx.put_want(new[key])
    for key in end_standby:
        version = tx.version(key)
        if version is not None and (normal := version.off_standby) != version:
            tx.put_version(normal)
    return tuple(held for held in old.values() if held is not None)


# --- keys ---------------------------------------------------------------------------------


def put_api_key(tx: Transaction, key: ApiKey) -> ApiKey:
    return key if tx.api_key(key.id) == key else tx.put_api_key(key)


def change_api_key(tx: Transaction, id_: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey | None:
    old = tx.api_key(id_)
    if old is None:
        return None
    new = change(old)
    return old if new == old else tx.put_api_key(new)


def drop_api_key(tx: Transaction, id_: str) -> bool:
    if tx.api_key(id_) is None:
        return False
    tx.drop_api_key(id_)
    return True


# --- tenants ------------------------------------------------------------------------------


def put_tenant(tx: Transaction, tenant: Tenant) -> Tenant:
    return tenant if tx.tenant(tenant.name) == tenant else tx.put_tenant(tenant)


def drop_tenant(tx: Transaction, name: str) -> bool:
    if tx.tenant(name) is None:
        return False
    tx.drop_tenant(name)
    return True


# --- schedules ----------------------------------------------------------------------------


def put_schedule(tx: Transaction, schedule: Schedule) -> Schedule:
    old = tx.schedule(schedule.name)
    if old is not None and old.same_request(schedule):
        return old
    return tx.put_schedule(schedule)


def delete_schedule(tx: Transaction, name: str) -> bool:
    if tx.schedule(name) is None:
        return False
    tx.drop_schedule(name)
    return True


def note_schedule(tx: Transaction, name: str, last_unix_s: float, error: str) -> Schedule | None:
    old = tx.schedule(name)
    if old is None:
        return None
    new = old.noted(last_unix_s, error)
    return old if new == old else tx.put_schedule(new)


# --- imports ------------------------------------------------------------------------------


def claim_import(
    tx: Transaction, importer: str, lease_s: float, now: float, by: str
) -> ModelVersion | None:
    jobs = tx.jobs()
    for key in sorted((key for key in jobs if jobs[key].is_free(now)), key=lambda k: jobs[k].order):
        version = tx.version(key)
        if version is None or version.state not in PENDING:
            continue  # one stray job must not end every claim
        tx.put_job(key, replace(jobs[key], importer=importer, until_unix_s=now + lease_s, by=by))
        return tx.put_version(lifecycle.claimed(version))
    return None


def report_progress(
    tx: Transaction,
    importer: str,
    key: VersionKey,
    fraction: float,
    step: str,
    lease_s: float,
    now: float,
    by: str,
) -> None:
    version, job = _importing(tx, importer, key, by)
    tx.put_job(key, replace(job, until_unix_s=now + lease_s))
    new = lifecycle.progressed(version, fraction, step)
    if new != version:
        tx.put_version(new)


def finish_import(
    tx: Transaction, importer: str, key: VersionKey, pack: Pack, settings: VersionSettings, by: str
) -> ModelVersion:
    tx.expect(versions=[key], jobs=[key])
    old = tx.version(key)
    if old is not None and old.pack is not None and old.pack.digest == pack.digest:
        return old  # a repeat
    version, _ = _importing(tx, importer, key, by)
    tx.drop_job(key)
    return tx.put_version(lifecycle.imported(version, pack, settings))


def fail_import(
    tx: Transaction, importer: str, key: VersionKey, reason: str, message: str, by: str
) -> ModelVersion:
    tx.expect(versions=[key], jobs=[key])
    old = tx.version(key)
    told = (VersionState.FAILED, reason, message)
    if old is not None and (old.state, old.reason, old.message) == told:
        return old  # a repeat
    version, _ = _importing(tx, importer, key, by)
    tx.drop_job(key)
    return tx.put_version(lifecycle.failed(version, reason, message))


def requeued(versions: Iterable[ModelVersion]) -> dict[VersionKey, ImportJob]:
    """The import queue of a restored store: unfinished imports begin again, the oldest first."""
    pending = [one for one in versions if one.state in PENDING and not one.is_fetching]
    pending.sort(key=lambda v: (v.created_unix_s, v.key))
    return {version.key: ImportJob(order) for order, version in enumerate(pending)}


def _importing(
    tx: Transaction, importer: str, key: VersionKey, by: str
) -> tuple[ModelVersion, ImportJob]:
    """The version and its job if the importer holds it. One whose lease ran out holds the job
    until another claims it. Who does not hold it is not told the name of who does.
    """
    tx.expect(versions=[key], jobs=[key])
    version, job = tx.version(key), tx.job(key)
    if version is None or job is None or not job.is_held_by(importer, by):
        state = version.state if version is not None else "deleted"
        held = " by another" if job is not None and job.importer else ""
        raise ImportNotYours(
            f"the import of {key} is not {importer}'s (it is {state}{held}): "
            "drop the work and claim another"
        )
    return version, job
