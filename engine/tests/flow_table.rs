//! The flow table's worst case: what an insert does that finds both buckets full and nothing in them to move.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use engine::table::flow::{BUCKET_SLOTS, EntryId, FlowKey, FlowTable, HashSecret, InsertError};

type Table = FlowTable<[u64; 6]>;

fn key(number: u32) -> FlowKey {
    FlowKey {
        source: number,
        destination: 0x0a00_0001,
        source_port: 7,
        destination_port: 80,
        protocol: 17,
        valid: 1,
        zone: 0,
    }
}

/// The table's two choices, as its documentation has them: of the hash's upper half, and of its lower half.
fn buckets(table: &Table, key: &FlowKey, count: u64) -> [u64; 2] {
    let hash = table.hash(key);
    [((hash >> 32) * count) >> 32, (u64::from(hash as u32) * count) >> 32]
}

/// Flows whose first direction can be in the buckets 0 and 1 alone. Only who knows the secret can choose them.
fn crowd(table: &Table) -> impl Iterator<Item = FlowKey> + '_ {
    let entries = 2 * table.capacity() as u64;
    let per_bucket = BUCKET_SLOTS as f64 * 0.8;
    let count = (entries as f64 / per_bucket).ceil() as u64 + 1;
    (0..1_000_000).map(key).filter(move |key| buckets(table, key, count).iter().all(|bucket| *bucket < 2))
}

fn insert(table: &mut Table, key: FlowKey) -> Result<EntryId, InsertError> {
    table.insert((key, [1; 6]), (key.reversed(), [2; 6]))
}

#[test]
fn an_insert_that_no_move_helps_is_refused_and_changes_nothing() {
    let mut table = Table::new(400, HashSecret::new(3, 5)).unwrap();
    let crowd: Vec<FlowKey> = crowd(&table).take(3 * BUCKET_SLOTS).collect();
    assert_eq!(crowd.len(), 3 * BUCKET_SLOTS);
    let mut held = Vec::new();
    let refused = crowd.iter().find(|key| match insert(&mut table, **key) {
        Ok(id) => {
            held.push((**key, id));
            false
        }
        // Its 24 moves found no place: there is none for any of the crowd.
        Err(error) => {
            assert_eq!(error, InsertError::Full);
            true
        }
    });
    let refused = refused.expect("two buckets hold no more than 24");
    // Answers of the crowd may have been there too until they were moved away.
    assert_eq!(held.len(), 2 * BUCKET_SLOTS, "every place of both was used first");
    assert_eq!(table.len(), held.len(), "there is room in the table, just not for these");
    let find = |table: &Table, key: &FlowKey| table.find(key, table.hash(key));
    for (key, id) in &held {
        assert_eq!((find(&table, key), find(&table, &key.reversed())), (Some(*id), Some(id.peer())));
    }
    assert_eq!((find(&table, refused), find(&table, &refused.reversed())), (None, None));

    // Others are not concerned, up to the last.
    for number in 2_000_000..2_000_000 + (400 - held.len() as u32) {
        assert!(insert(&mut table, key(number)).is_ok());
    }
    assert_eq!(table.len(), 400);
    table.remove(held[7].1);
    assert!(insert(&mut table, *refused).is_ok(), "a place has become free");
    assert_eq!(find(&table, &held[7].0), None);
}

#[test]
fn with_a_secret_that_nobody_knows_the_last_insert_finds_its_place_too() {
    const FLOWS: u32 = 300_000;
    for secret in [HashSecret::new(7, 9), HashSecret::new(0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321)] {
        let mut table = Table::new(FLOWS as usize, secret).unwrap();
        for number in 0..FLOWS {
            assert!(insert(&mut table, key(number)).is_ok(), "{number}");
        }
        // At capacity, one goes and another comes.
        for number in 0..FLOWS / 4 {
            let old = key(number);
            let id = table.find(&old, table.hash(&old)).expect("it was put in");
            table.remove(id);
            assert!(insert(&mut table, key(FLOWS + number)).is_ok(), "{number}");
        }
    }
}
