//! Which cores the workers and the control side run on.

use crate::control::config::Configuration;

/// Cores by role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorePlan {
    /// One for each worker.
    pub workers: Vec<usize>,
    /// Shared by the threads of the control side.
    pub control: Vec<usize>,
}

/// What the configuration says, and where it says nothing: one worker on the highest core that this process may use,
/// the control side on all others. A machine of one core shares it.
pub fn plan(configuration: &Configuration, available: &[usize]) -> CorePlan {
    let mut workers = configuration.workers.cores.clone();
    if workers.is_empty() {
        let free = available.iter().filter(|core| !configuration.control.cores.contains(core)).max();
        workers.extend(free.or(available.iter().max()));
    }
    let mut control = configuration.control.cores.clone();
    if control.is_empty() {
        control.extend(available.iter().filter(|core| !workers.contains(core)));
    }
    if control.is_empty() {
        control.extend(available);
    }
    CorePlan { workers, control }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::parse;

    fn planned(text: &str, available: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let plan = plan(&parse(text, "test").unwrap().configuration, available);
        (plan.workers, plan.control)
    }

    #[test]
    fn what_is_not_configured_is_chosen() {
        assert_eq!(planned("", &[0, 1, 5]), (vec![5], vec![0, 1]));
        assert_eq!(planned("[workers]\ncores = [0, 1]\n", &[0, 1, 5]), (vec![0, 1], vec![5]));
        assert_eq!(planned("[control]\ncores = [5]\n", &[0, 1, 5]), (vec![1], vec![5]));
        assert_eq!(planned("", &[3]), (vec![3], vec![3]), "one core is shared");
        assert_eq!(planned("[workers]\ncores = [2]\n[control]\ncores = [2]\n", &[1, 2]), (vec![2], vec![2]));
    }
}
