//! Cores: a worker has one of its own.

use std::collections::HashSet;

use crate::control::config::draft::Draft;
use crate::control::config::model::Idle;
use crate::control::config::notes::Notes;

pub(super) fn check(draft: &Draft, notes: &Notes) {
    for (list, whose) in [(&draft.workers.cores, "worker"), (&draft.control.cores, "control")] {
        let mut seen = HashSet::new();
        for core in list {
            if !seen.insert(core.value) {
                let wrong = format!("{whose} core {} is there twice", core.value);
                notes.error(core.offset, wrong, "name each core once");
            }
        }
    }
    let polls = draft.workers.rest.as_ref().is_some_and(|rest| rest.idle == Idle::Poll);
    for core in &draft.control.cores {
        if draft.workers.cores.iter().any(|worker| worker.value == core.value) {
            let consequence = if polls { "which never sleeps" } else { "which slows it down" };
            notes.warning(
                core.offset,
                format!("control core {} is a worker's too, {consequence}", core.value),
                "give the control threads a core of their own",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::control::config::testing::{changed, expect, expect_one};

    #[test]
    fn each_worker_has_a_core_of_its_own() {
        expect_one(
            "cores = [1] ",
            "cores = [1, 2, 1] ",
            ("error", "1]", "workers.cores[2]", "worker core 1 is there twice"),
        );
        expect_one(
            "cores = [0]",
            "cores = [1]",
            ("warning", "1]", "control.cores[0]", "control core 1 is a worker's too, which slows it down"),
        );
        let text = changed(&[("cores = [0]", "cores = [1]"), ("idle = \"sleep\"", "idle = \"poll\"")]);
        expect(&text, &[("warning", "1]", "control.cores[0]", "which never sleeps")]);
    }
}
