//! Asks the workers for their flows: one bounded slice after the other, through rings, so that a worker answers between
//! batches and stops for nobody.

use std::time::{Duration, Instant};

use engine::ring::{Consumer, Producer};
use engine::table::flow::{FlowEntry, FlowKey};

use crate::flow::FlowValue;
use crate::gateway::{FlowAnswer, FlowQuery, FlowReport};

/// How long a worker may take for one slice. Between two turns it sleeps a second at the most.
const SLICE_PATIENCE: Duration = Duration::from_secs(2);
/// How long all slices together may take; what has been gathered by then is the answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Flows that one slice brings at the most.
const SLICE_FLOWS: usize = 512;
/// Time between two looks for an answer.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker {worker} did not answer within {} seconds", SLICE_PATIENCE.as_secs())]
pub struct NoAnswer {
    /// The worker that was asked.
    pub worker: usize,
}

/// Flows that were found.
pub struct FoundFlows {
    /// With the worker that has each.
    pub flows: Vec<(usize, FlowReport)>,
    /// Whether there may be more.
    pub truncated: bool,
}

/// The control side's ends of one worker's rings.
pub struct FlowChannel {
    questions: Producer<FlowQuery>,
    answers: Consumer<FlowAnswer>,
    /// A question that was given up on: its answer may still come and belongs to nobody.
    is_owed: bool,
}

/// All workers' rings.
pub struct FlowQuestions {
    channels: Vec<FlowChannel>,
}

impl FlowChannel {
    /// The ends of a worker's rings.
    pub fn new(questions: Producer<FlowQuery>, answers: Consumer<FlowAnswer>) -> Self {
        Self { questions, answers, is_owed: false }
    }

    fn ask(&mut self, query: FlowQuery) -> Option<FlowAnswer> {
        let deadline = Instant::now() + SLICE_PATIENCE;
        if self.is_owed {
            self.wait(deadline)?;
        }
        // The ring has room: no other question is under way.
        self.questions.push(query).ok()?;
        self.is_owed = true;
        self.wait(deadline)
    }

    fn wait(&mut self, deadline: Instant) -> Option<FlowAnswer> {
        loop {
            if let Some(answer) = self.answers.pop() {
                self.is_owed = false;
                return Some(answer);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl FlowQuestions {
    /// Of all workers, in their order.
    pub fn new(channels: Vec<FlowChannel>) -> Self {
        Self { channels }
    }

    /// Up to `limit` flows that `wanted` picks.
    pub fn find(
        &mut self,
        limit: usize,
        wanted: impl Fn(&FlowReport) -> bool,
    ) -> Result<FoundFlows, NoAnswer> {
        let deadline = Instant::now() + PATIENCE;
        let mut found = FoundFlows { flows: Vec::new(), truncated: false };
        let mut reports = Vec::with_capacity(SLICE_FLOWS);
        for (worker, channel) in self.channels.iter_mut().enumerate() {
            let mut next_pair = Some(0);
            while let Some(from_pair) = next_pair {
                if Instant::now() >= deadline {
                    found.truncated = true;
                    return Ok(found);
                }
                let Some(FlowAnswer::Slice { reports: mut list, next_pair: next }) =
                    channel.ask(FlowQuery::Slice { from_pair, reports })
                else {
                    return Err(NoAnswer { worker });
                };
                for report in list.iter().filter(|report| wanted(report)) {
                    if found.flows.len() == limit {
                        found.truncated = true;
                        return Ok(found);
                    }
                    found.flows.push((worker, *report));
                }
                next_pair = next;
                list.clear();
                reports = list;
            }
        }
        Ok(found)
    }

    /// A copy of the flow entries of packets with this key, as `worker` has them; that of the key first.
    pub fn look_up(
        &mut self,
        worker: usize,
        key: FlowKey,
    ) -> Result<Option<[FlowEntry<FlowValue>; 2]>, NoAnswer> {
        let answer = self.channels.get_mut(worker).and_then(|channel| channel.ask(FlowQuery::Key(key)));
        match answer {
            Some(FlowAnswer::Key(found)) => Ok(found),
            _ => Err(NoAnswer { worker }),
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::ring::ring;

    use super::*;
    use crate::flow::flow_key;

    fn report(port: u16) -> FlowReport {
        let key = flow_key(6, 1, port, 2, 80);
        FlowReport {
            original: key,
            reply: key.reversed(),
            state: 3,
            flags: 0,
            idle_ms: 0,
            expires_in_ms: 1,
            backend_slot: 0,
        }
    }

    /// A worker with 1,000 pairs, of which each has a flow; 100 a slice.
    fn answer(query: FlowQuery) -> FlowAnswer {
        let FlowQuery::Slice { from_pair, mut reports } = query else { return FlowAnswer::Key(None) };
        let end = from_pair + 100;
        reports.extend((from_pair..end).map(|pair| report(pair as u16)));
        FlowAnswer::Slice { reports, next_pair: (end < 1_000).then_some(end) }
    }

    #[test]
    fn slices_are_asked_for_until_the_limit_and_a_silent_worker_is_named() {
        let (questions, mut asked) = ring(2);
        let (mut answers, answered) = ring(2);
        let mut all = FlowQuestions::new(vec![FlowChannel::new(questions, answered)]);
        let slices = 10 + 1;
        let worker = std::thread::spawn(move || {
            for _ in 0..slices {
                let query = loop {
                    match asked.pop() {
                        Some(query) => break query,
                        None => std::thread::yield_now(),
                    }
                };
                assert!(answers.push(answer(query)).is_ok());
            }
            (asked, answers)
        });
        let every = all.find(usize::MAX, |report| report.original.source_port % 2 == 0).unwrap();
        assert_eq!((every.flows.len(), every.truncated), (500, false));
        let few = all.find(7, |_| true).unwrap();
        assert_eq!((few.flows.len(), few.truncated), (7, true));
        let (mut asked, mut answers) = worker.join().unwrap();

        assert_eq!(all.find(1, |_| true).err(), Some(NoAnswer { worker: 0 }));
        // The late answer is no answer to the next question.
        assert!(answers.push(answer(asked.pop().unwrap())).is_ok());
        let worker = std::thread::spawn(move || {
            let query = loop {
                match asked.pop() {
                    Some(query) => break query,
                    None => std::thread::yield_now(),
                }
            };
            assert!(answers.push(answer(query)).is_ok());
        });
        assert_eq!(all.find(1, |_| true).unwrap().flows.len(), 1);
        worker.join().unwrap();
    }
}
