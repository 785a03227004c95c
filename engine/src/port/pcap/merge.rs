//! Reads several captures as one, in the order of time.

use super::{CaptureError, CaptureReader, Record};
use crate::clock::Timestamp;

/// Several captures merged. Times never go back: a record that stands in its file behind a later one keeps its place
/// and takes that one's time, and is counted.
pub struct CaptureMerge {
    inputs: Vec<CaptureReader>,
    /// The input whose record was handed out last and must be advanced before the next choice.
    consumed: Option<usize>,
    now: Timestamp,
    reordered: u64,
}

impl CaptureMerge {
    /// Merges `inputs`; reads the first record of each.
    pub fn new(mut inputs: Vec<CaptureReader>) -> Result<Self, CaptureError> {
        for input in &mut inputs {
            input.advance()?;
        }
        Ok(Self { inputs, consumed: None, now: Timestamp::ZERO, reordered: 0 })
    }

    /// The next record in time with its input's number; none when all have ended. Of records of one time, the first
    /// input's comes first.
    pub fn next_record(&mut self) -> Result<Option<(usize, Record<'_>)>, CaptureError> {
        if let Some(input) = self.consumed.take().and_then(|place| self.inputs.get_mut(place)) {
            input.advance()?;
        }
        let waiting = self.inputs.iter().enumerate();
        let Some((place, mut record)) = waiting
            .filter_map(|(place, input)| Some((place, input.record()?)))
            .min_by_key(|(_, record)| record.timestamp)
        else {
            return Ok(None);
        };
        self.consumed = Some(place);
        self.reordered += u64::from(record.timestamp < self.now);
        self.now = self.now.max(record.timestamp);
        record.timestamp = self.now;
        Ok(Some((place, record)))
    }

    /// The captures, each with what was read of it. The record that waits in each is counted as read.
    pub fn inputs(&self) -> &[CaptureReader] {
        &self.inputs
    }

    /// Records that stood behind a later one.
    pub fn reordered(&self) -> u64 {
        self.reordered
    }
}
