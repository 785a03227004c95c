//! The templates of both sides' segments.

use crate::scenario::Scenario;
use crate::sizes::{CHECK_SEQUENCE, FRAME_MIN};
use crate::tag::Direction;
use crate::template::Template;

/// Ethernet, IP and TCP headers and the check sequence: what a frame has besides the payload.
const AROUND_PAYLOAD: u16 = 14 + 20 + 20 + CHECK_SEQUENCE;

/// Bytes of data in a segment whose frame has this size.
pub(super) fn data_length(size: u16) -> usize {
    usize::from(size.saturating_sub(AROUND_PAYLOAD).max(1))
}

/// What segments of one side and size have in common.
pub(super) struct SegmentTemplate {
    pub(super) frame: Template,
    /// Bytes of data in each data segment of the connection.
    pub(super) data: u32,
    /// The port that the side sends by.
    pub(super) port: u16,
}

/// Segments of both sides: bare ones, and with data of each size.
pub(super) struct Templates {
    client: Vec<SegmentTemplate>,
    server: Vec<SegmentTemplate>,
}

impl Templates {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let side = |port: u16, link| {
            let sizes = scenario.sizes.sizes().iter();
            let with = |(data, carried): (usize, usize)| SegmentTemplate {
                frame: Template::segment(link, carried, scenario.time_to_live),
                data: data as u32,
                port,
            };
            // For each size the bare segment, then the one with data.
            sizes
                .flat_map(|size| [(data_length(*size), 0), (data_length(*size), data_length(*size))])
                .map(with)
                .collect()
        };
        Self {
            client: side(scenario.client_port, scenario.client_link()),
            server: side(scenario.backend_port, scenario.backend_link()),
        }
    }

    #[inline(always)]
    pub(super) fn of(&self, from: Direction, has_data: bool, size: usize) -> Option<&SegmentTemplate> {
        let side = if from == Direction::Request { &self.client } else { &self.server };
        side.get(size * 2 + usize::from(has_data))
    }
}

const _: () = assert!(AROUND_PAYLOAD < FRAME_MIN);
