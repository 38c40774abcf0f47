//! The catalog's mirror: one object holds the whole catalog as of a moment, without secrets. Pure.
//!
//! An object is eight bytes of magic, the format (u32, big endian), the SHA-256 of the body, and the body. Tables and namespaces stand in
//! it as the records that the volume stores, with their own format versions, so that whatever reads old volumes reads old mirrors. So do
//! tables that were dropped, as long as their folders may be there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::EngineError;
use crate::catalog::{self, Catalog, Credentials, Role, User};
use crate::flush::Epoch;
use crate::hot::DroppedTable;
use crate::hot::volume::HighWater;
use crate::schema::UserId;

const MAGIC: &[u8; 8] = b"kalamcat";
/// The version of the layout and of [`Stored`]; 2 brought the dropped tables.
const FORMAT: u32 = 2;
const LIVING_TABLES_FORMAT: u32 = 1;
const DIGEST_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + size_of::<u32>() + DIGEST_BYTES;

/// The name of a mirror below `catalog/`: mirrors sort by the epoch of their owner, and then by their number, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MirrorName {
    /// Of the process that wrote it.
    pub epoch: Epoch,
    /// Counts that process's mirrors.
    pub number: u64,
}

impl fmt::Display for MirrorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}-{:010}", self.epoch.0, self.number)
    }
}

/// A text that names no mirror.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not of the form epoch-number")]
pub struct NotAMirror(pub String);

impl FromStr for MirrorName {
    type Err = NotAMirror;

    fn from_str(text: &str) -> Result<Self, NotAMirror> {
        let parsed = text
            .split_once('-')
            .and_then(|(epoch, number)| Some(Self { epoch: Epoch(epoch.parse().ok()?), number: number.parse().ok()? }));
        // Whatever else parses is not what we wrote.
        parsed.filter(|name| name.to_string() == text).ok_or_else(|| NotAMirror(text.into()))
    }
}

/// The catalog as of a moment.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// The database.
    pub database_id: Uuid,
    /// The volume that it was written from: whoever has another one was displaced.
    pub volume: Uuid,
    /// Its name, which stands in the object too.
    pub name: MirrorName,
    /// Milliseconds since the Unix epoch.
    pub written_at: i64,
    /// No commit of the volume was above it at that moment.
    pub high_water: HighWater,
    /// Namespaces, every version of every table, and users without credentials.
    pub catalog: Catalog,
    /// Tables that are not in the catalog any more, and whose folders may still be there.
    pub dropped: Vec<DroppedTable>,
}

/// The body of the object.
#[derive(Serialize, Deserialize)]
struct Stored {
    database_id: Uuid,
    volume: Uuid,
    epoch: u64,
    number: u64,
    written_at: i64,
    high_water: HighWater,
    /// Records of the catalog's own format.
    namespaces: Vec<Vec<u8>>,
    /// Records of tables, every version, by id and version.
    tables: Vec<Vec<u8>>,
    users: Vec<MirroredUser>,
    next_table_id: u32,
    /// Records of dropped tables.
    dropped: Vec<Vec<u8>>,
}

/// A user, but for the secrets: a type that has no place for them.
#[derive(Serialize, Deserialize)]
struct MirroredUser {
    id: UserId,
    role: Role,
    email: Option<String>,
    created_at: i64,
    updated_at: i64,
}

impl Mirror {
    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let catalog = &self.catalog;
        let user = |user: &User| MirroredUser {
            id: user.id.clone(),
            role: user.role,
            email: user.email.clone(),
            created_at: user.created_at,
            updated_at: user.updated_at,
        };
        let stored = Stored {
            database_id: self.database_id,
            volume: self.volume,
            epoch: self.name.epoch.0,
            number: self.name.number,
            written_at: self.written_at,
            high_water: self.high_water,
            namespaces: catalog.namespaces.values().map(|namespace| catalog::namespace_bytes(namespace)).collect(),
            tables: catalog
                .versions
                .values()
                .flat_map(|all| all.iter())
                .map(|table| catalog::table_bytes(table))
                .collect(),
            users: catalog.users.values().map(|one| user(one)).collect(),
            next_table_id: catalog.next_table_id,
            dropped: self.dropped.iter().map(DroppedTable::encode).collect(),
        };
        let body =
            bincode::serde::encode_to_vec(&stored, bincode::config::standard()).expect("memory takes every record");
        [&MAGIC[..], &FORMAT.to_be_bytes(), &Sha256::digest(&body), &body].concat()
    }

    /// Reads an object that stands under that name. The error says what is wrong with it.
    pub fn decode(name: MirrorName, bytes: &[u8]) -> Result<Self, String> {
        let stored = stored_in(bytes)?;
        let found = MirrorName { epoch: Epoch(stored.epoch), number: stored.number };
        if found != name {
            return Err(format!("it is a copy of {found}"));
        }
        let namespaces = stored.namespaces.iter().map(|bytes| catalog::namespace_of(bytes));
        let tables = stored.tables.iter().enumerate();
        let tables = tables.map(|(at, bytes)| catalog::table_of(bytes, format!("{at} of the mirror").as_bytes()));
        let text = |error: EngineError| error.to_string();
        let catalog = Catalog::of(
            namespaces.collect::<Result<_, _>>().map_err(text)?,
            tables.collect::<Result<_, _>>().map_err(text)?,
            stored.users.into_iter().map(User::from).collect(),
            stored.next_table_id,
        );
        let dropped = stored.dropped.iter().map(|bytes| DroppedTable::decode(bytes));
        let dropped = dropped.collect::<Result<_, _>>().map_err(text)?;
        let Stored { database_id, volume, written_at, high_water, .. } = stored;
        Ok(Self { database_id, volume, name, written_at, high_water, catalog, dropped })
    }

    /// Why a volume with that id and that catalog must not go on beside this mirror, where it is the newest; none where it may. What a
    /// volume has mirrored is durable in it, so that one which lacks any of it is older than the mirror, or not the one that wrote it.
    pub fn displaces(&self, volume: Uuid, catalog: &Catalog) -> Option<String> {
        if self.volume != volume {
            return Some(format!("epoch {} took the database over with another volume", self.name.epoch));
        }
        for (id, versions) in &self.catalog.versions {
            let Some(newest) = versions.last() else { continue };
            let known = catalog.versions_of(*id).last();
            let is_behind = match known {
                Some(known) => known.uuid != newest.uuid || known.version < newest.version,
                // One that is not there and whose number was given out was dropped.
                None => id.0 >= catalog.next_table_id,
            };
            if is_behind {
                return Some(format!("the volume does not know version {} of table {}", newest.version.0, newest.name));
            }
        }
        None
    }
}

/// Those that were dropped before the catalog was as it is. One that it still has, or does not know yet, is none of them: a recovery from it
/// would delete the folder of a table that lives.
pub fn dropped_before(catalog: &Catalog, dropped: Vec<DroppedTable>) -> Vec<DroppedTable> {
    let is_before =
        |table: &DroppedTable| table.id.0 < catalog.next_table_id && catalog.versions_of(table.id).is_empty();
    dropped.into_iter().filter(is_before).collect()
}

/// Checks everything that surrounds the body, and reads it.
fn stored_in(bytes: &[u8]) -> Result<Stored, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin as a mirror of the catalog does")?;
    let (format, _) = rest.split_first_chunk::<4>().ok_or("it is cut off")?;
    let format = u32::from_be_bytes(*format);
    if format != FORMAT && format != LIVING_TABLES_FORMAT {
        return Err(format!(
            "its format is version {format}, this build reads version {FORMAT}; start the build that wrote it, or a later one"
        ));
    }
    let body = bytes.get(HEADER_BYTES..).ok_or("it is cut off")?;
    if Sha256::digest(body)[..] != bytes[HEADER_BYTES - DIGEST_BYTES..HEADER_BYTES] {
        return Err("its checksum does not fit its content".into());
    }
    let mut body = body.to_vec();
    if format == LIVING_TABLES_FORMAT {
        // An empty list of dropped tables, before which it ends.
        body.push(0);
    }
    let (stored, read) =
        bincode::serde::decode_from_slice(&body, bincode::config::standard()).map_err(|error| error.to_string())?;
    if read == body.len() { Ok(stored) } else { Err(format!("{} bytes too many", body.len() - read)) }
}

impl From<MirroredUser> for User {
    fn from(user: MirroredUser) -> Self {
        let MirroredUser { id, role, email, created_at, updated_at } = user;
        Self { id, role, email, credentials: Credentials::None, created_at, updated_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::CatalogChange;
    use crate::schema::testing::table;
    use crate::schema::{SqlType, Table, TableId, TableKind};
    use crate::seq::Seq;

    fn root() -> UserId {
        UserId::from(catalog::ROOT)
    }

    fn catalog() -> Catalog {
        let first = catalog::first_catalog(7);
        let credentials = Credentials::Password("$argon2id$secret".into());
        let made = table(TableKind::Shared, &[SqlType::Int, SqlType::Double], &[0]);
        let changes = [
            CatalogChange::PutUser(User { credentials, ..User::clone(&first.users[&root()]) }),
            CatalogChange::CreateTable(Box::new(made)),
        ];
        let apply = |catalog: Catalog, change| catalog::apply(&catalog, change).unwrap().catalog;
        changes.iter().fold(first, apply)
    }

    fn mirror(catalog: Catalog) -> Mirror {
        let name = MirrorName { epoch: Epoch(3), number: 12 };
        let high_water = HighWater { seq: Seq(77), updated: 78 };
        Mirror {
            database_id: Uuid::from_u128(1),
            volume: Uuid::from_u128(2),
            name,
            written_at: 9,
            high_water,
            catalog,
            dropped: vec![dropped(0, 5)],
        }
    }

    fn dropped(id: u32, uuid: u128) -> DroppedTable {
        DroppedTable { id: TableId(id), uuid: Uuid::from_u128(uuid), at_ms: 8, storage: None }
    }

    #[test]
    fn a_mirror_comes_back_without_secrets_and_its_name_sorts() {
        let written = mirror(catalog());
        let bytes = written.encode();
        assert!(!bytes.windows(6).any(|part| part == b"secret" || part == b"argon2"), "no hash leaves the volume");
        let read = Mirror::decode(written.name, &bytes).unwrap();
        assert_eq!(
            (read.database_id, read.volume, read.high_water),
            (written.database_id, written.volume, written.high_water)
        );
        assert_eq!(read.catalog.tables, written.catalog.tables);
        assert_eq!(read.catalog.users[&root()].credentials, Credentials::None);
        assert_eq!((read.catalog.next_table_id, read.catalog.namespaces.len()), (2, 1));
        assert_eq!(read.dropped, written.dropped);
        assert_eq!(written.name.to_string(), "0000000003-0000000012");
        assert_eq!("0000000003-0000000012".parse(), Ok(written.name));
        assert!("3-12".parse::<MirrorName>().is_err() && "0000000003-0000000012.tmp".parse::<MirrorName>().is_err());
    }

    #[test]
    fn a_mirror_from_before_dropped_tables_names_none() {
        let written = Mirror { dropped: Vec::new(), ..mirror(catalog()) };
        let mut bytes = written.encode();
        // The empty list, which the older format did not have.
        bytes.pop();
        bytes[11] = 1;
        let digest = Sha256::digest(&bytes[HEADER_BYTES..]);
        bytes[HEADER_BYTES - DIGEST_BYTES..HEADER_BYTES].copy_from_slice(&digest);
        let read = Mirror::decode(written.name, &bytes).unwrap();
        assert_eq!((read.catalog.tables, read.dropped), (written.catalog.tables, Vec::new()));
    }

    #[test]
    fn a_mirror_names_no_table_as_dropped_that_its_catalog_has_or_does_not_know_yet() {
        let known = catalog();
        assert_eq!(known.tables.values().next().unwrap().id, TableId(1));
        let gone = Catalog { next_table_id: 2, ..catalog::first_catalog(7) };
        let named = |catalog: &Catalog| dropped_before(catalog, vec![dropped(1, 5), dropped(2, 6)]);
        assert_eq!(named(&known), [], "dropped since, and made and dropped since");
        assert_eq!(named(&gone), [dropped(1, 5)]);
    }

    #[test]
    fn whatever_is_wrong_with_a_mirror_is_noticed() {
        let written = mirror(catalog());
        let bytes = written.encode();
        let refusal = |bytes: &[u8]| Mirror::decode(written.name, bytes).unwrap_err();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            refusal(&flipped);
            refusal(&bytes[..at]);
        }
        let mut newer = bytes.clone();
        newer[11] = 3;
        assert!(refusal(&newer).contains("format is version 3, this build reads version 2"));
        let other = MirrorName { number: 13, ..written.name };
        assert!(Mirror::decode(other, &bytes).unwrap_err().contains("copy of 0000000003-0000000012"));
    }

    #[test]
    fn a_volume_goes_on_only_where_it_knows_what_the_newest_mirror_says() {
        let known = catalog();
        let written = mirror(known.clone());
        assert_eq!(written.displaces(written.volume, &known), None);
        assert!(written.displaces(Uuid::from_u128(9), &known).unwrap().contains("another volume"));
        let older = catalog::first_catalog(7);
        assert!(written.displaces(written.volume, &older).unwrap().contains("version 1 of table default.t"));
        let dropped = Catalog { next_table_id: 2, ..older };
        assert_eq!(written.displaces(written.volume, &dropped), None, "a table that was dropped since");
        let newest = known.tables.values().next().unwrap();
        let other = Catalog::of(vec![], vec![Table { uuid: Uuid::from_u128(5), ..(**newest).clone() }], vec![], 2);
        assert!(written.displaces(written.volume, &other).is_some(), "another history");
        let later = Table { version: crate::schema::SchemaVersion(2), ..(**newest).clone() };
        let altered = mirror(Catalog::of(vec![], vec![(**newest).clone(), later], vec![], 2));
        assert!(altered.displaces(written.volume, &known).unwrap().contains("version 2"));
    }
}
