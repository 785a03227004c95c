//! Events on their way to the neighbour machine: a bounded list, refilled by each batch.

use arrayvec::ArrayVec;

use crate::neighbour_machine::Event;

/// Events that one batch may raise; more are lost, counted, and raised again by later packets.
pub const EVENTS_MAX: usize = 128;

/// What one worker has to tell.
#[derive(Default)]
pub struct Events {
    /// Not told yet.
    pub list: ArrayVec<Event, EVENTS_MAX>,
    /// How many found no place.
    pub lost: u64,
}

impl Events {
    /// Adds an event; one that is already there is not told twice.
    pub fn raise(&mut self, event: Event) {
        if self.list.last() == Some(&event) || self.list.contains(&event) {
            return;
        }
        if self.list.try_push(event).is_err() {
            self.lost += 1;
        }
    }
}
