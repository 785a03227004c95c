//! Asks the workers for their flows: one bounded slice after the other, through rings, so that a worker answers between
//! batches and stops for nobody.

use std::time::{Duration, Instant};

use engine::ring::{Consumer, Producer};

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

    fn ask(&mut self, from_pair: u32, reports: Vec<FlowReport>) -> Option<FlowAnswer> {
        let deadline = Instant::now() + SLICE_PATIENCE;
        if self.is_owed {
            self.wait(deadline)?;
        }
        // The ring has room: no other question is under way.
        self.questions.push(FlowQuery { from_pair, reports }).ok()?;
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
                let answer = channel.ask(from_pair, reports).ok_or(NoAnswer { worker })?;
                for report in answer.reports.iter().filter(|report| wanted(report)) {
                    if found.flows.len() == limit {
                        found.truncated = true;
                        return Ok(found);
                    }
                    found.flows.push((worker, *report));
                }
                next_pair = answer.next_pair;
                reports = answer.reports;
                reports.clear();
            }
        }
        Ok(found)
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
        let mut reports = query.reports;
        let end = query.from_pair + 100;
        reports.extend((query.from_pair..end).map(|pair| report(pair as u16)));
        FlowAnswer { reports, next_pair: (end < 1_000).then_some(end) }
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
        let late = asked.pop().unwrap();
        assert!(answers.push(FlowAnswer { reports: late.reports, next_pair: None }).is_ok());
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
