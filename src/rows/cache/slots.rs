//! The slots of a row cache by the ids of their rows. A slot stays at its place, and a table of hashes finds the place:
//! a look-up touches the table, which is small, and the slot, which holds the id too.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use super::Slot;

/// Where a cached row lies, until the next sweep. Four billion rows need 400 GB of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    fn new(piece: usize, within: usize) -> Self {
        Self((piece * PIECE_SLOTS + within) as u32)
    }

    fn piece(self) -> usize {
        self.0 as usize / PIECE_SLOTS
    }

    fn within(self) -> usize {
        self.0 as usize % PIECE_SLOTS
    }
}

/// Slots lie in pieces of so many, so that none is moved when there are more.
const PIECE_SLOTS: usize = 512;

/// Bytes of an id that lie in the slot: an address of Ethereum has 42, a UUID 36.
const INLINE_BYTES: usize = 46;

/// The id of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Id {
    Short { len: u8, bytes: [u8; INLINE_BYTES] },
    Long(Box<str>),
}

impl Id {
    pub(super) fn new(id: &str) -> Self {
        let mut bytes = [0; INLINE_BYTES];
        match (bytes.get_mut(..id.len()), u8::try_from(id.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(id.as_bytes());
                Self::Short { len, bytes }
            }
            _ => Self::Long(id.into()),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(id) => id.as_bytes(),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            // It was made of a text.
            Self::Short { .. } => std::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Self::Long(id) => id,
        }
    }

    /// Bytes of memory that an id takes beside the slot.
    pub(super) fn memory_bytes(id: &str) -> usize {
        if id.len() <= INLINE_BYTES { 0 } else { id.len() }
    }
}

/// Slots by the ids of their rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    /// All full but the last.
    pieces: Vec<Vec<Option<Slot>>>,
    /// Places without a slot.
    free: Vec<Place>,
    places: HashTable<Place>,
    hasher: RandomState,
    /// The place that was asked for last: who has read a row writes it next.
    last: Option<Place>,
}

fn slot_at(pieces: &[Vec<Option<Slot>>], place: Place) -> Option<&Slot> {
    pieces.get(place.piece())?.get(place.within())?.as_ref()
}

impl Slots {
    /// The place of a row.
    pub(super) fn find(&mut self, id: &str) -> Option<Place> {
        if let Some(last) = self.last
            && self.is_at(last, id)
        {
            return Some(last);
        }
        self.last = self.look_up(id);
        self.last
    }

    fn look_up(&self, id: &str) -> Option<Place> {
        self.places.find(self.hasher.hash_one(id.as_bytes()), |place| self.is_at(*place, id)).copied()
    }

    /// Whether the row at a place has this id.
    pub(super) fn is_at(&self, place: Place, id: &str) -> bool {
        self.at(place).is_some_and(|slot| slot.id.as_bytes() == id.as_bytes())
    }

    /// The slot of a row.
    pub(super) fn get(&self, id: &str) -> Option<&Slot> {
        self.look_up(id).and_then(|place| self.at(place))
    }

    /// The slot at a place.
    pub(super) fn at(&self, place: Place) -> Option<&Slot> {
        slot_at(&self.pieces, place)
    }

    /// The same to change.
    pub(super) fn at_mut(&mut self, place: Place) -> Option<&mut Slot> {
        self.pieces.get_mut(place.piece())?.get_mut(place.within())?.as_mut()
    }

    /// Takes in the slot of a row that has none.
    pub(super) fn insert(&mut self, slot: Slot) -> Place {
        let hash = self.hasher.hash_one(slot.id.as_bytes());
        let place = match self.free.pop() {
            Some(place) => {
                self.pieces[place.piece()][place.within()] = Some(slot);
                place
            }
            None => self.push(slot),
        };
        let Self { pieces, places, hasher, .. } = self;
        let hash_of = |slot: &Slot| hasher.hash_one(slot.id.as_bytes());
        places.insert_unique(hash, place, |place| slot_at(pieces, *place).map_or(0, hash_of));
        place
    }

    fn push(&mut self, slot: Slot) -> Place {
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE_SLOTS) {
            // The first one grows as it needs: there may be many regions of few rows.
            let capacity = if self.pieces.is_empty() { 0 } else { PIECE_SLOTS };
            self.pieces.push(Vec::with_capacity(capacity));
        }
        let last = self.pieces.len() - 1;
        self.pieces[last].push(Some(slot));
        Place::new(last, self.pieces[last].len() - 1)
    }

    /// Takes out the slot at a place.
    pub(super) fn remove(&mut self, place: Place) -> Option<Slot> {
        let hash = self.hasher.hash_one(self.at(place)?.id.as_bytes());
        self.places.find_entry(hash, |other| *other == place).ok()?.remove();
        self.free.push(place);
        self.pieces[place.piece()][place.within()].take()
    }

    /// Keeps the slots that `keep` wants, perhaps at other places, and gives back the memory of the others. Returns the
    /// new places in the order of the old ones; none where a slot is gone.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut Slot) -> bool) -> Vec<Option<Place>> {
        let slots = std::mem::take(self).pieces.into_iter().flatten();
        slots.map(|slot| slot.and_then(|mut slot| keep(&mut slot).then(|| self.insert(slot)))).collect()
    }

    /// All slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.pieces.iter().flatten().flatten()
    }

    /// The places of the slots that are looked for.
    pub(super) fn places_of(&self, is_wanted: impl Fn(&Slot) -> bool) -> Vec<Place> {
        self.places.iter().copied().filter(|place| self.at(*place).is_some_and(&is_wanted)).collect()
    }
}

/// Where a slot lies now that lay at a place before it was kept; `places` is what [`Slots::retain`] returned.
pub(super) fn moved(places: &[Option<Place>], from: Place) -> Option<Place> {
    places.get(from.0 as usize).copied().flatten()
}
