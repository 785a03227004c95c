//! The flow table: two directions of a flow, each found by its own key, each in one cache line.
//!
//! Entries live in pairs: the two directions of a flow are neighbours in one array (`id` and `id ^ 1`), so neither
//! stores where the other is. They are found through buckets of one cache line with twelve 8-bit tags and twelve entry
//! numbers. A key may be in two buckets, drawn from independent bits of its hash; it goes to the second only when the
//! first is full, and the first counts how many did, so that most lookups, also the failing ones, read one bucket. With
//! both full, one entry is moved to its other bucket: at most 24 are tried, so an insert is bounded and never rehashes.
//!
//! Memory, all in: 2 × 64 bytes of entries, 2 × 64 / (12 × 0.8) of buckets, 4 of the free list, an eighth for a mark: 145.5
//! bytes a flow.
//!
//! **Invariant:** an entry in use is in exactly one bucket; both entries of a pair are in use, or neither.

use arrayvec::ArrayVec;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::prefetch::prefetch_read;
use crate::table::bit_tree::BitTree;
use crate::table::pages::{PageArray, PageArrayError};
use crate::table::tags::matching;

/// One direction of a flow: 16 bytes, compared as two words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(16))]
pub struct FlowKey {
    /// Source address in host order.
    pub source: u32,
    /// Destination address in host order.
    pub destination: u32,
    /// Source port, or what the protocol has in its place.
    pub source_port: u16,
    /// Destination port, or what the protocol has in its place.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// 1 in every key of a real packet, so that no key is all zero.
    pub valid: u8,
    /// For the user's own separation of spaces.
    pub zone: u16,
}

impl FlowKey {
    /// The other direction.
    #[inline(always)]
    pub fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }

    /// Equality in two comparisons.
    #[inline(always)]
    pub fn is(&self, other: &Self) -> bool {
        let (left, right): ([u64; 2], [u64; 2]) = (zerocopy::transmute!(*self), zerocopy::transmute!(*other));
        (left[0] ^ right[0]) | (left[1] ^ right[1]) == 0
    }

    #[inline(always)]
    fn words(&self) -> (u64, u64) {
        (
            u64::from(self.source) << 32 | u64::from(self.destination),
            u64::from(self.source_port) << 48
                | u64::from(self.destination_port) << 32
                | u64::from(self.protocol) << 24
                | u64::from(self.valid) << 16
                | u64::from(self.zone),
        )
    }
}

/// A secret that makes hashes unpredictable from outside, so that nobody can aim many flows at one bucket.
#[derive(Clone, Copy, Debug)]
pub struct HashSecret {
    first: u64,
    second: u64,
}

impl HashSecret {
    /// From two random words.
    pub fn new(first: u64, second: u64) -> Self {
        Self { first: first | 1, second: second | 1 }
    }

    /// The hash of a key: two rounds of a 64 × 64 to 128 bit multiplication whose halves are folded.
    #[inline(always)]
    pub fn hash(self, key: &FlowKey) -> u64 {
        let (low, high) = key.words();
        let mixed = fold_multiply(low ^ self.first, high ^ self.second);
        fold_multiply(mixed ^ self.second, 0x9e37_79b9_7f4a_7c15)
    }
}

#[inline(always)]
fn fold_multiply(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product >> 64) as u64 ^ product as u64
}

/// Places in a bucket.
pub const BUCKET_SLOTS: usize = 12;
/// Of 16 tag bytes, twelve are tags and this one counts keys that had to go to their second bucket.
const SPILLED: usize = 12;
/// Buckets are sized so that a full table loads their places to four fifths.
const LOAD: f64 = 0.8;

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Bucket {
    /// Low byte of the hash, made non-zero; 0: the place is free. Byte 12: the count of spilled keys.
    tags: [u8; 16],
    entries: [u32; BUCKET_SLOTS],
}

impl Bucket {
    /// A bit for each place with this tag.
    #[inline(always)]
    fn matches(&self, tag: u8) -> u32 {
        matching(&self.tags, tag) & 0xfff
    }
}

/// One direction of a flow: its key and 48 bytes of the user's.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct FlowEntry<V> {
    /// What its packets look like on arrival. All zero: the entry is free.
    pub key: FlowKey,
    /// What is known of them.
    pub value: V,
}

/// Which entry. `EntryId(id.0 ^ 1)` is the other direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u32);

impl EntryId {
    /// The other direction of the same flow.
    #[inline(always)]
    pub fn peer(self) -> Self {
        Self(self.0 ^ 1)
    }

    /// The pair's number: a table of capacity N has pairs 0 to N - 1.
    #[inline(always)]
    pub fn pair(self) -> u32 {
        self.0 >> 1
    }
}

/// Why a flow was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// As many flows as the table was made for, or the places of both buckets and their moves are taken.
    Full,
    /// The first direction's key is already in the table.
    FirstExists,
    /// The second direction's key is already in the table.
    SecondExists,
}

/// Flows of one worker.
pub struct FlowTable<V> {
    buckets: PageArray<Bucket>,
    entries: PageArray<FlowEntry<V>>,
    /// Numbers of free pairs.
    free: Vec<u32>,
    /// Pairs in use that the user has marked.
    marked: BitTree,
    secret: HashSecret,
    capacity: usize,
}

#[inline(always)]
fn tag_of(hash: u64) -> u8 {
    (hash as u8).max(1)
}

impl<V: Copy + FromZeros> FlowTable<V> {
    /// A table for `capacity` flows (at least one, at most 2^30), all its memory taken now.
    pub fn new(capacity: usize, secret: HashSecret) -> Result<Self, PageArrayError> {
        const { assert!(size_of::<FlowEntry<V>>() == 64) };
        let capacity = capacity.clamp(1, 1 << 30);
        let bucket_count = ((2 * capacity) as f64 / (BUCKET_SLOTS as f64 * LOAD)).ceil() as usize + 1;
        Ok(Self {
            buckets: PageArray::new(bucket_count)?,
            entries: PageArray::new(2 * capacity)?,
            free: (0..capacity as u32).rev().collect(),
            marked: BitTree::new(capacity),
            secret,
            capacity,
        })
    }

    /// Flows the table was made for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Flows in the table.
    pub fn len(&self) -> usize {
        self.capacity - self.free.len()
    }

    /// Whether no flow is in the table.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory the table holds, all in.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.buckets)
            + size_of_val(&*self.entries)
            + self.free.capacity() * 4
            + self.marked.memory_bytes()
    }

    /// Places that are free: as many flows can be put in before any has to go, but for full buckets.
    #[inline(always)]
    pub fn free_pairs(&self) -> usize {
        self.free.len()
    }

    /// The hash of a key, for the other calls.
    #[inline(always)]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        self.secret.hash(key)
    }

    #[inline(always)]
    fn first_bucket(&self, hash: u64) -> usize {
        (((hash >> 32) * self.buckets.len() as u64) >> 32) as usize
    }

    #[inline(always)]
    fn second_bucket(&self, hash: u64) -> usize {
        // The tag's bits weigh least: were they on top, all that is in a bucket for the second time would have one tag, and
        // tags would tell nothing apart there.
        ((u64::from(hash as u32) * self.buckets.len() as u64) >> 32) as usize
    }

    /// First of the steps over a burst: asks for the bucket.
    #[inline(always)]
    pub fn prefetch_bucket(&self, hash: u64) {
        prefetch_read(&raw const self.buckets[self.first_bucket(hash)]);
    }

    /// For keys that probably are not there, when their bucket has been asked for: asks for the second one if a lookup or an
    /// insertion will need it.
    #[inline(always)]
    pub fn prefetch_second_bucket(&self, hash: u64) {
        let first = &self.buckets[self.first_bucket(hash)];
        if first.tags[SPILLED] != 0 || first.matches(0) == 0 {
            prefetch_read(&raw const self.buckets[self.second_bucket(hash)]);
        }
    }

    /// Second step, when all buckets have been asked for: reads it. A hint may be dropped (processors do that when the page's
    /// address is not at hand); a read is not, and reads of a loop that does nothing else wait for memory together.
    #[inline(always)]
    pub fn touch_bucket(&self, hash: u64) {
        core::hint::black_box(self.buckets[self.first_bucket(hash)].tags[SPILLED]);
    }

    /// As [`Self::touch_bucket`], for an entry that was asked for.
    #[inline(always)]
    pub fn touch_entry(&self, id: EntryId) {
        core::hint::black_box(self.entries[id.0 as usize].key.valid);
    }

    /// Third step: asks for the entry that probably is the one, and names it. None: it is not in its first bucket, and the
    /// second one has been asked for if it may be there.
    #[inline(always)]
    pub fn prefetch_entry(&self, hash: u64) -> Option<EntryId> {
        let bucket = &self.buckets[self.first_bucket(hash)];
        let found = self.prefetch_match(bucket, hash);
        if found.is_none() && bucket.tags[SPILLED] != 0 {
            prefetch_read(&raw const self.buckets[self.second_bucket(hash)]);
        }
        found
    }

    /// As [`Self::prefetch_entry`], for those that were not in their first bucket.
    #[inline]
    pub fn prefetch_second_entry(&self, hash: u64) -> Option<EntryId> {
        if self.buckets[self.first_bucket(hash)].tags[SPILLED] == 0 {
            return None;
        }
        self.prefetch_match(&self.buckets[self.second_bucket(hash)], hash)
    }

    #[inline(always)]
    fn prefetch_match(&self, bucket: &Bucket, hash: u64) -> Option<EntryId> {
        let matches = bucket.matches(tag_of(hash));
        if matches == 0 {
            return None;
        }
        let entry = bucket.entries[matches.trailing_zeros() as usize % BUCKET_SLOTS];
        prefetch_read(&raw const self.entries[entry as usize]);
        Some(EntryId(entry))
    }

    /// Last step: the entry with this key, looking first where `hint` says.
    #[inline(always)]
    pub fn find_with_hint(&self, key: &FlowKey, hash: u64, hint: Option<EntryId>) -> Option<EntryId> {
        match hint {
            Some(id) if self.entries[id.0 as usize].key.is(key) => Some(id),
            None if self.buckets[self.first_bucket(hash)].tags[SPILLED] == 0 => None,
            _ => self.find(key, hash),
        }
    }

    /// The entry with this key.
    pub fn find(&self, key: &FlowKey, hash: u64) -> Option<EntryId> {
        let first = &self.buckets[self.first_bucket(hash)];
        self.find_in(first, key, hash).or_else(|| {
            if first.tags[SPILLED] == 0 {
                return None;
            }
            self.find_in(&self.buckets[self.second_bucket(hash)], key, hash)
        })
    }

    #[inline(always)]
    fn find_in(&self, bucket: &Bucket, key: &FlowKey, hash: u64) -> Option<EntryId> {
        let mut matches = bucket.matches(tag_of(hash));
        while matches != 0 {
            let entry = bucket.entries[matches.trailing_zeros() as usize % BUCKET_SLOTS];
            if self.entries[entry as usize].key.is(key) {
                return Some(EntryId(entry));
            }
            matches &= matches - 1;
        }
        None
    }

    /// An entry.
    #[inline(always)]
    pub fn entry(&self, id: EntryId) -> &FlowEntry<V> {
        &self.entries[id.0 as usize]
    }

    /// An entry's value, to write.
    #[inline(always)]
    pub fn value_mut(&mut self, id: EntryId) -> &mut V {
        &mut self.entries[id.0 as usize].value
    }

    /// The two directions of pair `pair`; none if it is free or beyond the table.
    pub fn pair(&self, pair: u32) -> Option<(&FlowEntry<V>, &FlowEntry<V>)> {
        let first = self.entries.get(pair as usize * 2)?;
        let second = self.entries.get(pair as usize * 2 + 1)?;
        (first.key.valid != 0).then_some((first, second))
    }

    /// Puts a flow in: both directions or none. Gives the first direction's entry.
    pub fn insert(&mut self, first: (FlowKey, V), second: (FlowKey, V)) -> Result<EntryId, InsertError> {
        let hashes = [self.hash(&first.0), self.hash(&second.0)];
        if self.find(&first.0, hashes[0]).is_some() {
            return Err(InsertError::FirstExists);
        }
        if self.find(&second.0, hashes[1]).is_some() || first.0 == second.0 {
            return Err(InsertError::SecondExists);
        }
        self.insert_absent([first, second], hashes)
    }

    /// As [`Self::insert`], for keys that were looked up just before, with their hashes: the caller knows that they differ
    /// and that neither is in the table. With one that is, packets would go on finding the older flow.
    pub fn insert_absent(
        &mut self,
        flow: [(FlowKey, V); 2],
        hashes: [u64; 2],
    ) -> Result<EntryId, InsertError> {
        let [first, second] = flow;
        debug_assert!(first.0 != second.0, "a flow has two directions");
        debug_assert!(
            self.find(&first.0, hashes[0]).or(self.find(&second.0, hashes[1])).is_none(),
            "neither is there"
        );
        let pair = self.free.pop().ok_or(InsertError::Full)?;
        let id = EntryId(pair * 2);
        self.entries[id.0 as usize] = FlowEntry { key: first.0, value: first.1 };
        self.entries[id.0 as usize + 1] = FlowEntry { key: second.0, value: second.1 };
        if self.link(hashes[0], id) {
            if self.link(hashes[1], id.peer()) {
                return Ok(id);
            }
            self.unlink(hashes[0], id);
        }
        self.entries[id.0 as usize] = FlowEntry::new_zeroed();
        self.entries[id.0 as usize + 1] = FlowEntry::new_zeroed();
        self.free.push(pair);
        Err(InsertError::Full)
    }

    /// Takes the flow of this entry out, both directions, and its mark.
    pub fn remove(&mut self, id: EntryId) {
        let first = EntryId(id.0 & !1);
        if self.entries[first.0 as usize].key.valid == 0 {
            return;
        }
        self.remove_hashed(first.pair(), self.pair_hashes(first.pair()));
    }

    /// Asks for an entry; beyond the table for nothing.
    #[inline(always)]
    pub fn prefetch(&self, id: EntryId) {
        if let Some(entry) = self.entries.get(id.0 as usize) {
            prefetch_read(&raw const *entry);
        }
    }

    /// The hashes of a pair in use.
    #[inline(always)]
    fn pair_hashes(&self, pair: u32) -> [u64; 2] {
        [0, 1].map(|direction| self.hash(&self.entries[pair as usize * 2 + direction].key))
    }

    /// Takes many flows out, each named once: what each needs is asked for before the first is taken out.
    pub fn remove_all<const AT_ONCE: usize>(&mut self, pairs: &ArrayVec<u32, AT_ONCE>) {
        let mut hashes = ArrayVec::<(u32, [u64; 2]), AT_ONCE>::new();
        for pair in pairs.iter().filter(|pair| self.pair(**pair).is_some()) {
            let both = self.pair_hashes(*pair);
            both.iter().for_each(|hash| self.prefetch_bucket(*hash));
            hashes.push((*pair, both));
        }
        for (pair, both) in hashes {
            self.remove_hashed(pair, both);
        }
    }

    fn remove_hashed(&mut self, pair: u32, hashes: [u64; 2]) {
        for (direction, hash) in hashes.into_iter().enumerate() {
            let id = EntryId(pair * 2 + direction as u32);
            self.unlink(hash, id);
            self.entries[id.0 as usize] = FlowEntry::new_zeroed();
        }
        self.marked.remove(pair as usize);
        self.free.push(pair);
    }

    /// Marks a flow, or takes its mark away. The mark goes with the flow.
    #[inline]
    pub fn set_mark(&mut self, id: EntryId, is_marked: bool) {
        if is_marked {
            self.marked.insert(id.pair() as usize)
        } else {
            self.marked.remove(id.pair() as usize)
        }
    }

    /// The first marked pair that is `from` or more, or else the first of all.
    #[inline]
    pub fn next_marked(&self, from: u32) -> Option<u32> {
        self.marked.next(from as usize).or_else(|| self.marked.next(0)).map(|pair| pair as u32)
    }

    fn link(&mut self, hash: u64, id: EntryId) -> bool {
        let (first, second) = (self.first_bucket(hash), self.second_bucket(hash));
        if self.place(first, hash, id) {
            return true;
        }
        if self.place(second, hash, id) {
            self.count_spilled(first, 1);
            return true;
        }
        if self.make_room(first) {
            return self.place(first, hash, id);
        }
        if self.make_room(second) && self.place(second, hash, id) {
            self.count_spilled(first, 1);
            return true;
        }
        false
    }

    fn place(&mut self, bucket: usize, hash: u64, id: EntryId) -> bool {
        let bucket = &mut self.buckets[bucket];
        let free = bucket.matches(0);
        if free == 0 {
            return false;
        }
        let slot = free.trailing_zeros() as usize % BUCKET_SLOTS;
        bucket.tags[slot] = tag_of(hash);
        bucket.entries[slot] = id.0;
        true
    }

    /// Moves one entry of a full bucket to its other bucket.
    fn make_room(&mut self, bucket: usize) -> bool {
        for slot in 0..BUCKET_SLOTS {
            let id = EntryId(self.buckets[bucket].entries[slot]);
            let hash = self.hash(&self.entries[id.0 as usize].key);
            let (first, second) = (self.first_bucket(hash), self.second_bucket(hash));
            let other = if first == bucket { second } else { first };
            if other == bucket || !self.place(other, hash, id) {
                continue;
            }
            self.buckets[bucket].tags[slot] = 0;
            // Leaving its first bucket it spills; coming home it no longer does.
            self.count_spilled(first, if first == bucket { 1 } else { -1 });
            return true;
        }
        false
    }

    fn unlink(&mut self, hash: u64, id: EntryId) {
        let first = self.first_bucket(hash);
        for bucket in [first, self.second_bucket(hash)] {
            let mut matches = self.buckets[bucket].matches(tag_of(hash));
            while matches != 0 {
                let slot = matches.trailing_zeros() as usize % BUCKET_SLOTS;
                if self.buckets[bucket].entries[slot] == id.0 {
                    self.buckets[bucket].tags[slot] = 0;
                    if bucket != first {
                        self.count_spilled(first, -1);
                    }
                    return;
                }
                matches &= matches - 1;
            }
        }
    }

    /// Counts spilled keys. At 255 the count sticks: lookups then always read both buckets, which is right if slower.
    fn count_spilled(&mut self, bucket: usize, change: i8) {
        let count = &mut self.buckets[bucket].tags[SPILLED];
        if *count < u8::MAX {
            *count = count.saturating_add_signed(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
    #[repr(C)]
    struct Value([u8; 48]);

    fn value(number: u8) -> Value {
        Value([number; 48])
    }

    fn key(number: u32) -> FlowKey {
        FlowKey {
            source: number,
            destination: 0x0a00_0001,
            source_port: (number >> 16) as u16 ^ number as u16,
            destination_port: 80,
            protocol: 6,
            valid: 1,
            zone: 0,
        }
    }

    fn table(capacity: usize) -> FlowTable<Value> {
        FlowTable::new(capacity, HashSecret::new(0x1234_5678_9abc_def1, 0xfedc_ba98_7654_3211)).unwrap()
    }

    #[test]
    fn fills_to_its_whole_capacity_and_not_beyond() {
        let mut table = table(100_000);
        for number in 0..100_000 {
            assert!(table.insert((key(number), value(1)), (key(number).reversed(), value(2))).is_ok());
        }
        let extra = (key(100_000), value(1));
        assert_eq!(table.insert(extra, (extra.0.reversed(), value(2))), Err(InsertError::Full));
        assert_eq!(table.len(), 100_000);
        assert!(table.memory_bytes() <= 160 * 100_000, "{}", table.memory_bytes());
        let mut second_buckets = 0;
        for number in 0..100_000 {
            for key in [key(number), key(number).reversed()] {
                let hash = table.hash(&key);
                let found = table.find_with_hint(&key, hash, table.prefetch_entry(hash));
                assert_eq!(found.map(|id| id.pair()), Some(number));
                second_buckets +=
                    u32::from(table.find_in(&table.buckets[table.first_bucket(hash)], &key, hash).is_none());
            }
        }
        // Most keys are where they are looked for first, at full load too.
        assert!(second_buckets < 30_000, "{second_buckets}");
    }

    #[test]
    fn refuses_keys_that_are_there() {
        let mut table = table(8);
        table.insert((key(1), value(1)), (key(1).reversed(), value(2))).unwrap();
        assert_eq!(
            table.insert((key(1), value(1)), (key(2).reversed(), value(2))),
            Err(InsertError::FirstExists)
        );
        assert_eq!(
            table.insert((key(2), value(1)), (key(1).reversed(), value(2))),
            Err(InsertError::SecondExists)
        );
        assert_eq!(table.len(), 1);
    }

    /// Each entry that is looked at for nothing is a miss of the cache: tags must tell keys apart in second buckets, too.
    #[test]
    fn absent_keys_are_known_by_their_tags() {
        let mut table = table(100_000);
        for number in 0..100_000 {
            table.insert((key(number), value(1)), (key(number).reversed(), value(2))).unwrap();
        }
        let (mut alike, mut second_buckets) = (0, 0);
        for number in 200_000..300_000 {
            let hash = table.hash(&key(number));
            let first = &table.buckets[table.first_bucket(hash)];
            alike += first.matches(tag_of(hash)).count_ones();
            if first.tags[SPILLED] != 0 {
                second_buckets += 1;
                alike += table.buckets[table.second_bucket(hash)].matches(tag_of(hash)).count_ones();
            }
        }
        // Twelve tags of 255 in the first bucket, at 0.8 load, and as many in the second of some.
        assert!(alike < 7_000 && second_buckets < 60_000, "{alike} {second_buckets}");
    }

    #[test]
    fn marks_go_with_their_flows() {
        let mut table = table(100);
        let ids: Vec<EntryId> = (0..100)
            .map(|number| table.insert((key(number), value(1)), (key(number).reversed(), value(2))).unwrap())
            .collect();
        assert_eq!(table.next_marked(0), None);
        for place in [3, 70, 71] {
            table.set_mark(ids[place].peer(), true);
        }
        let pairs = [3, 70, 71].map(|place: usize| ids[place].pair());
        assert_eq!([0, 4, 71, 72].map(|from| table.next_marked(from)), [3, 70, 71, 3].map(Some));
        table.set_mark(ids[70], false);
        table.remove_all(&ArrayVec::from([pairs[0]]));
        assert_eq!((table.next_marked(0), table.len(), table.free_pairs()), (Some(71), 99, 1));
        // The next flow in the place of a marked one has no mark.
        table.insert((key(200), value(1)), (key(200).reversed(), value(2))).unwrap();
        table.remove(ids[71].peer());
        assert_eq!((table.next_marked(0), table.find(&key(3), table.hash(&key(3)))), (None, None));
        assert!(table.find(&key(200), table.hash(&key(200))).is_some());
    }

    proptest! {
        /// Against a map: whatever is inserted and removed, both directions are found, and only those.
        #[test]
        fn behaves_as_a_map(steps in proptest::collection::vec((any::<bool>(), 0u32..60), 1..400)) {
            let mut table = table(40);
            let mut model = HashMap::new();
            for (insert, number) in steps {
                let key = key(number);
                if insert {
                    let result = table.insert((key, value(1)), (key.reversed(), value(2)));
                    if model.contains_key(&number) {
                        prop_assert_eq!(result, Err(InsertError::FirstExists));
                    } else if model.len() < 40 {
                        prop_assert!(result.is_ok());
                        model.insert(number, result.unwrap());
                    } else {
                        prop_assert_eq!(result, Err(InsertError::Full));
                    }
                } else if let Some(id) = model.remove(&number) {
                    table.remove(if number % 2 == 0 { id } else { id.peer() });
                }
                for number in 0..60 {
                    let (key, expected) = (self::key(number), model.get(&number).copied());
                    prop_assert_eq!(table.find(&key, table.hash(&key)), expected);
                    let back = key.reversed();
                    prop_assert_eq!(table.find(&back, table.hash(&back)), expected.map(EntryId::peer));
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for (_, id) in model {
                table.remove(id);
            }
            prop_assert!(table.buckets.iter().all(|bucket| bucket.tags[..=SPILLED] == [0; 13]));
        }
    }
}
