//! Objects of Git in memory, by their ids.

use std::collections::BTreeMap;

use bytes::Bytes;
use gix_hash::ObjectId;
use gix_object::{Data, Find, Kind};

/// The hash of ids: repositories with SHA-256 are refused when they say what they are.
pub const HASH: gix_hash::Kind = gix_hash::Kind::Sha1;

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its content.
    pub bytes: Bytes,
}

/// Objects by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects(BTreeMap<ObjectId, Object>);

impl Objects {
    /// An object.
    pub fn get(&self, id: &ObjectId) -> Option<&Object> {
        self.0.get(id)
    }

    /// The content of an object, if it is of that kind.
    pub fn of_kind(&self, id: &ObjectId, kind: Kind) -> Option<&Bytes> {
        let object = self.get(id).filter(|object| object.kind == kind);
        object.map(|object| &object.bytes)
    }

    /// Takes an object under its id.
    pub fn insert(&mut self, id: ObjectId, object: Object) {
        self.0.insert(id, object);
    }

    /// All objects in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectId, &Object)> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the objects of others in.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Drops the objects that are not wanted.
    pub fn retain(&mut self, wanted: impl Fn(&ObjectId, &Object) -> bool) {
        self.0.retain(|id, object| wanted(id, object));
    }
}

impl Find for Objects {
    fn try_find<'a>(
        &self,
        id: &gix_hash::oid,
        buffer: &'a mut Vec<u8>,
    ) -> gix_error::Result<Option<Data<'a>>> {
        Ok(self.0.get(id).map(|object| {
            buffer.clear();
            buffer.extend_from_slice(&object.bytes);
            Data::new(buffer, object.kind, HASH)
        }))
    }
}

/// The id of an object. An error where its bytes are made to have the id of others.
pub fn id_of(kind: Kind, bytes: &[u8]) -> Result<ObjectId, String> {
    gix_object::compute_hash(HASH, kind, bytes).map_err(|error| error.to_string())
}
