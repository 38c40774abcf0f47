//! Mirrors in the object store. They are made by create-only puts and never changed; old ones go once newer ones are there.

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::mirror::{Mirror, MirrorName};
use crate::EngineError;
use crate::cold::ColdStore;
use crate::cold::store::Created;

/// Mirrors that stay beside the newest: somebody may be reading them, and a person may have to go back to one.
const KEPT: usize = 4;
/// How often the newest mirror is looked for while it is pruned again and again.
const TRIES: usize = 5;

/// Where a mirror lies below the prefix.
pub fn path_of(name: MirrorName) -> Path {
    Path::from(format!("catalog/{name}"))
}

/// All mirrors that there are, oldest first. What has another name is not ours and stays.
pub async fn names(store: &ColdStore) -> Result<Vec<MirrorName>, EngineError> {
    let folder = Path::from("catalog");
    let failed = |error| store.failed("list the mirrors of the catalog", error);
    let objects: Vec<_> = store.objects().list(Some(&folder)).try_collect().await.map_err(failed)?;
    let name = |path: &Path| path.filename()?.parse().ok();
    let mut names: Vec<MirrorName> = objects.iter().filter_map(|object| name(&object.location)).collect();
    names.sort();
    Ok(names)
}

/// The newest mirror; none where there is none. A damaged one is an error and not passed over: the one before it may lack tables that
/// were flushed since.
pub async fn newest(store: &ColdStore) -> Result<Option<Mirror>, EngineError> {
    for _ in 0..TRIES {
        let Some(name) = names(store).await?.pop() else { return Ok(None) };
        let path = path_of(name);
        // Gone again: a newer one has come since.
        let Some(bytes) = store.get(&path).await? else { continue };
        return Mirror::decode(name, &bytes).map(Some).map_err(|reason| EngineError::Corrupt {
            what: format!("mirror of the catalog {path} in {}", store.name()),
            reason,
        });
    }
    Err(EngineError::Unavailable(format!("the newest mirror of the catalog in {} is always gone again", store.name())))
}

/// Puts a mirror under the next number of its epoch, and prunes. `mirror.name.number` is ignored. Fails where a later epoch has mirrors.
pub async fn put(store: &ColdStore, mirror: &mut Mirror) -> Result<(), EngineError> {
    let epoch = mirror.name.epoch;
    let mut there = names(store).await?;
    if let Some(later) = there.last().filter(|last| last.epoch > epoch) {
        return Err(displaced(store, mirror, *later));
    }
    mirror.name.number = there.last().filter(|last| last.epoch == epoch).map_or(1, |last| last.number + 1);
    let (path, bytes) = (path_of(mirror.name), bytes::Bytes::from(mirror.encode()));
    // An earlier try of the same put may have made it; else one whose answer was lost has come now, and the next try takes a new name.
    if store.put_new(&path, bytes.clone()).await? == Created::Before && store.get(&path).await? != Some(bytes) {
        return Err(EngineError::Unavailable(format!("{path} was taken by an earlier try; try again")));
    }
    store.make_durable(&path).await?;
    crash_point!("mirror.put");
    there.push(mirror.name);
    prune(store, &there).await;
    crash_point!("mirror.pruned");
    Ok(())
}

/// The oldest go. `there` ends with a mirror that is known to be whole and is this process's own.
async fn prune(store: &ColdStore, there: &[MirrorName]) {
    let too_old = there.len().saturating_sub(KEPT);
    for name in &there[..too_old] {
        let path = path_of(*name);
        if let Err(error) = store.objects().delete(&path).await {
            tracing::debug!(%path, %error, "an old mirror of the catalog is left to the next pruning");
        }
    }
}

fn displaced(store: &ColdStore, mirror: &Mirror, later: MirrorName) -> EngineError {
    let source = format!(
        "another instance owns {} since epoch {}: it wrote {}. Stop one of the two; nothing was overwritten, and what this one has not \
         flushed is in its volume only",
        store.name(),
        later.epoch,
        path_of(later)
    );
    EngineError::Cold { action: format!("mirror the catalog in epoch {}", mirror.name.epoch), source: source.into() }
}
