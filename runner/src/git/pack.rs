//! Packs, in which objects travel and are kept. Pure.
//!
//! Read here and not by a library that is made for repositories on disk: what a hostile server sends is read in a process
//! that holds secrets, so it stays in memory, and every size is bounded before anything is allocated. Written without deltas,
//! so that packs can be joined without reading them.

use std::{collections::HashMap, io::Write};

use flate2::{Compression, Decompress, FlushDecompress, Status, write::ZlibEncoder};
use gix_hash::ObjectId;
use gix_object::Kind;

use super::object::{HASH, Object, Objects, id_of};

/// Length of an object's id.
const ID: usize = 20;
/// Magic, version and number of objects.
const HEADER: usize = 12;

/// Why a pack cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// It is not of the format, or damaged.
    #[error("the pack is damaged: {0}")]
    Damaged(String),
    /// It is larger than what a project may have.
    #[error("{0}")]
    TooMuch(String),
}

/// The most that is taken.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Objects.
    pub objects: usize,
    /// Bytes of one object.
    pub each: usize,
    /// Bytes of all objects.
    pub total: usize,
}

/// Reads a whole pack.
pub fn read(pack: &[u8], limits: Limits) -> Result<Objects, PackError> {
    let body = pack.len().checked_sub(ID).filter(|end| *end >= HEADER);
    let (body, trailer) = pack.split_at(body.ok_or_else(|| damaged("it is cut off"))?);
    if !body.starts_with(b"PACK") || !matches!(number(&body[4..8]), 2 | 3) {
        return Err(damaged("it does not begin as packs of version 2 do"));
    }
    let mut hasher = gix_hash::hasher(HASH);
    hasher.update(body);
    let sum = hasher
        .try_finalize()
        .map_err(|error| damaged(error.to_string()))?;
    if sum.as_bytes() != trailer {
        return Err(damaged("its checksum is wrong"));
    }
    let count = number(&body[8..12]);
    if count > limits.objects {
        return Err(PackError::TooMuch(format!(
            "the repository has {count} files and folders at this commit; {} are the most of a project",
            limits.objects
        )));
    }
    let mut reader = Reader::new(body, limits);
    for _ in 0..count {
        reader.entry()?;
    }
    reader.finish()
}

fn damaged(why: impl Into<String>) -> PackError {
    PackError::Damaged(why.into())
}

/// Four bytes as a number.
fn number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

/// What a delta builds on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Base {
    At(usize),
    Id(ObjectId),
}

/// A delta that waits for its base.
struct Waiting {
    at: usize,
    delta: Vec<u8>,
}

struct Reader<'a> {
    body: &'a [u8],
    at: usize,
    left: usize,
    limits: Limits,
    inflate: Decompress,
    objects: Objects,
    places: HashMap<usize, ObjectId>,
    waiting: HashMap<Base, Vec<Waiting>>,
}

impl<'a> Reader<'a> {
    fn new(body: &'a [u8], limits: Limits) -> Self {
        Self {
            body,
            at: HEADER,
            left: limits.total,
            limits,
            inflate: Decompress::new(true),
            objects: Objects::default(),
            places: HashMap::new(),
            waiting: HashMap::new(),
        }
    }

    fn byte(&mut self) -> Result<u8, PackError> {
        let byte = self.body.get(self.at).copied();
        self.at += 1;
        byte.ok_or_else(|| damaged("it ends within an object"))
    }

    fn entry(&mut self) -> Result<(), PackError> {
        let start = self.at;
        let first = self.byte()?;
        let mut size = usize::from(first & 0x0f);
        let (mut byte, mut shift) = (first, 4);
        while byte & 0x80 != 0 {
            byte = self.byte()?;
            if shift > 32 {
                return Err(damaged("the size of an object is no number"));
            }
            size |= usize::from(byte & 0x7f) << shift;
            shift += 7;
        }
        let kind = match first >> 4 & 7 {
            1 => Kind::Commit,
            2 => Kind::Tree,
            3 => Kind::Blob,
            4 => Kind::Tag,
            6 => {
                let base = Base::At(self.offset(start)?);
                return self.delta(start, base, size);
            }
            7 => {
                let end = self.at + ID;
                let id = self
                    .body
                    .get(self.at..end)
                    .ok_or_else(|| damaged("it ends within an object"))?;
                let base = Base::Id(ObjectId::from_bytes_or_panic(id));
                self.at = end;
                return self.delta(start, base, size);
            }
            _ => return Err(damaged("an object has no known type")),
        };
        let bytes = self.inflated(size)?.into();
        self.place(start, Object { kind, bytes })
    }

    /// Where the base of a delta begins, as its distance before the delta.
    fn offset(&mut self, start: usize) -> Result<usize, PackError> {
        let mut byte = self.byte()?;
        let mut back = usize::from(byte & 0x7f);
        while byte & 0x80 != 0 {
            byte = self.byte()?;
            if back > 1 << 40 {
                return Err(damaged("the base of a delta is nowhere"));
            }
            back = (back + 1) << 7 | usize::from(byte & 0x7f);
        }
        start
            .checked_sub(back)
            .filter(|base| back > 0 && *base >= HEADER)
            .ok_or_else(|| damaged("the base of a delta is nowhere"))
    }

    fn delta(&mut self, start: usize, base: Base, size: usize) -> Result<(), PackError> {
        let delta = self.inflated(size)?;
        let waiting = Waiting { at: start, delta };
        let Some(object) = self.found(base) else {
            self.waiting.entry(base).or_default().push(waiting);
            return Ok(());
        };
        let (at, object) = self.built(&object, &waiting)?;
        self.place(at, object)
    }

    fn found(&self, base: Base) -> Option<Object> {
        let id = match base {
            Base::At(place) => *self.places.get(&place)?,
            Base::Id(id) => id,
        };
        self.objects.get(&id).cloned()
    }

    /// The object that a delta makes of its base, and where it stands.
    fn built(&mut self, base: &Object, waiting: &Waiting) -> Result<(usize, Object), PackError> {
        let size = self.size_of(&waiting.delta, &base.bytes)?;
        self.spend(size)?;
        let bytes = apply(&base.bytes, &waiting.delta, size)?.into();
        // The delta is not kept.
        self.left += waiting.delta.len();
        let kind = base.kind;
        Ok((waiting.at, Object { kind, bytes }))
    }

    /// The size of what a delta makes.
    fn size_of(&self, delta: &[u8], base: &[u8]) -> Result<usize, PackError> {
        let (of_base, rest) = varint(delta)?;
        let (size, _) = varint(rest)?;
        if of_base != base.len() {
            return Err(damaged("a delta is for another base"));
        }
        self.bounded(size)
    }

    fn bounded(&self, size: usize) -> Result<usize, PackError> {
        if size > self.limits.each {
            return Err(PackError::TooMuch(format!(
                "the repository has a file of {size} bytes; {} are the most of a file of a project. `git ls-tree -r -l REF` names it",
                self.limits.each
            )));
        }
        Ok(size)
    }

    fn spend(&mut self, size: usize) -> Result<(), PackError> {
        match self.left.checked_sub(size) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(PackError::TooMuch(format!(
                "the files of the repository have more than {} bytes together at this commit, the most of a project",
                self.limits.total
            ))),
        }
    }

    /// The bytes of an object, whose size the pack promises.
    fn inflated(&mut self, size: usize) -> Result<Vec<u8>, PackError> {
        let size = self.bounded(size)?;
        self.spend(size)?;
        self.inflate.reset(true);
        // A byte more than promised tells a stream that is too long.
        let mut bytes = Vec::with_capacity(size + 1);
        let rest = self.body.get(self.at..).unwrap_or_default();
        loop {
            let taken = usize::try_from(self.inflate.total_in()).unwrap_or(usize::MAX);
            let input = rest.get(taken..).unwrap_or_default();
            let before = (taken, bytes.len());
            let status = self
                .inflate
                .decompress_vec(input, &mut bytes, FlushDecompress::Finish)
                .map_err(|error| damaged(error.to_string()))?;
            let taken = usize::try_from(self.inflate.total_in()).unwrap_or(usize::MAX);
            if status == Status::StreamEnd {
                self.at += taken;
                break;
            }
            if bytes.len() > size || before == (taken, bytes.len()) {
                return Err(damaged("an object is longer than it says, or cut off"));
            }
        }
        if bytes.len() == size {
            Ok(bytes)
        } else {
            Err(damaged("an object has another size than it says"))
        }
    }

    /// Takes an object in, and all deltas that waited for it.
    fn place(&mut self, at: usize, object: Object) -> Result<(), PackError> {
        let mut made = vec![(at, object)];
        while let Some((at, object)) = made.pop() {
            let id = id_of(object.kind, &object.bytes).map_err(damaged)?;
            self.places.insert(at, id);
            for base in [Base::At(at), Base::Id(id)] {
                for waiting in self.waiting.remove(&base).unwrap_or_default() {
                    made.push(self.built(&object, &waiting)?);
                }
            }
            self.objects.insert(id, object);
        }
        Ok(())
    }

    fn finish(self) -> Result<Objects, PackError> {
        if self.at != self.body.len() {
            return Err(damaged("there is something behind its last object"));
        }
        if !self.waiting.is_empty() {
            return Err(damaged("the base of a delta is not in it"));
        }
        Ok(self.objects)
    }
}

/// A number of seven bits a byte, the lowest first; and what is behind it.
fn varint(bytes: &[u8]) -> Result<(usize, &[u8]), PackError> {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate().take(6) {
        number |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((number, &bytes[index + 1..]));
        }
    }
    Err(damaged("the size in a delta is no number"))
}

/// Builds an object of `size` bytes from its base and a delta.
fn apply(base: &[u8], delta: &[u8], size: usize) -> Result<Vec<u8>, PackError> {
    let wrong = || damaged("a delta does not fit its base");
    let (_, rest) = varint(delta)?;
    let (_, mut rest) = varint(rest)?;
    let mut made = Vec::with_capacity(size);
    while let Some((&command, after)) = rest.split_first() {
        rest = after;
        let piece = if command & 0x80 == 0 {
            let length = usize::from(command);
            let piece = rest
                .get(..length)
                .filter(|_| length > 0)
                .ok_or_else(wrong)?;
            rest = &rest[length..];
            piece
        } else {
            let mut field = |bits: std::ops::Range<u8>| {
                let mut number = 0;
                for (index, bit) in bits.enumerate() {
                    if command & 1 << bit != 0 {
                        let (&byte, after) = rest.split_first().ok_or_else(wrong)?;
                        rest = after;
                        number |= usize::from(byte) << (8 * index);
                    }
                }
                Ok::<usize, PackError>(number)
            };
            let from = field(0..4)?;
            let length = match field(4..7)? {
                0 => 0x1_0000,
                length => length,
            };
            base.get(from..from + length).ok_or_else(wrong)?
        };
        if made.len() + piece.len() > size {
            return Err(wrong());
        }
        made.extend_from_slice(piece);
    }
    if made.len() == size {
        Ok(made)
    } else {
        Err(wrong())
    }
}

/// Writes a pack. The objects of one id are written once.
pub fn write(objects: &Objects) -> Vec<u8> {
    let mut pack = Vec::from(*b"PACK\0\0\0\x02");
    let count = u32::try_from(objects.len()).unwrap_or(u32::MAX);
    pack.extend(count.to_be_bytes());
    for object in objects.iter().map(|(_, object)| object) {
        let kind = match object.kind {
            Kind::Commit => 1,
            Kind::Tree => 2,
            Kind::Blob => 3,
            Kind::Tag => 4,
        };
        let mut size = object.bytes.len();
        let mut byte = kind << 4 | low(size, 4);
        size >>= 4;
        while size > 0 {
            pack.push(byte | 0x80);
            byte = low(size, 7);
            size >>= 7;
        }
        pack.push(byte);
        let mut deflate = ZlibEncoder::new(&mut pack, Compression::default());
        // Neither can fail: the bytes go to memory.
        let _ = deflate.write_all(&object.bytes);
        let _ = deflate.finish();
    }
    let mut hasher = gix_hash::hasher(HASH);
    hasher.update(&pack);
    if let Ok(sum) = hasher.try_finalize() {
        pack.extend(sum.as_bytes());
    }
    pack
}

/// The lowest bits of a number.
fn low(number: usize, bits: u32) -> u8 {
    u8::try_from(number & ((1 << bits) - 1)).unwrap_or_default()
}
