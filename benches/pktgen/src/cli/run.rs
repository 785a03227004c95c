//! The commands that send.

use engine::clock::MonotonicClock;
use serde::Serialize;

use super::{Common, text};
use crate::config::Configuration;
use crate::device::{DeviceError, run_command, with_ports};
use crate::nat::{self, Capacity, CommandTearDown, NatError};
use crate::runner::Runner;
use crate::search::{self, SearchResult};
use crate::trial::Trial;

/// What `--json` prints.
#[derive(Serialize)]
struct Output<'r, R: Serialize> {
    test: &'r str,
    good: bool,
    result: &'r R,
}

fn print<R: Serialize>(
    common: &Common,
    test: &str,
    good: bool,
    result: &R,
    text: &str,
) -> Result<bool, String> {
    if common.json {
        let output = Output { test, good, result };
        println!("{}", serde_json::to_string_pretty(&output).map_err(|error| error.to_string())?);
    } else {
        print!("{text}");
    }
    Ok(good)
}

/// Commands of the configuration, and the cores that they may use.
struct Commands {
    clear: Option<String>,
    wait_ms: u64,
    delete: Option<String>,
    cores: Vec<usize>,
    core: Option<usize>,
}

impl Commands {
    fn call(&self, command: &str) -> Result<(), NatError> {
        run_command(command, &self.cores, self.core)
            .map_err(|reason| NatError::Command { command: command.to_owned(), reason })
    }

    /// Lets the gateway's table become empty.
    fn clear(&self) -> Result<(), NatError> {
        if let Some(command) = &self.clear {
            self.call(command)?;
        }
        std::thread::sleep(std::time::Duration::from_millis(self.wait_ms));
        Ok(())
    }
}

/// Opens the ports and runs a job on them.
fn with_runner<R: Send>(
    configuration: &Configuration,
    job: impl FnOnce(&mut Runner, &Commands) -> Result<R, String> + Send,
) -> Result<R, String> {
    let scenario = configuration.scenario().map_err(|error| error.to_string())?;
    let load = configuration.load_settings().map_err(|error| error.to_string())?;
    let result = with_ports(configuration, &scenario, |ports| {
        let clock = MonotonicClock::new();
        let commands = Commands {
            clear: configuration.nat.clear_command.clone(),
            wait_ms: configuration.nat.clear_wait_ms,
            delete: configuration.nat.delete_command.clone(),
            cores: ports.cores,
            core: configuration.machine.core,
        };
        let mut runner =
            Runner::new(scenario.clone(), load, ports.queues, ports.source, Box::new(move || clock.now()));
        let result = job(&mut runner, &commands);
        drop(runner.finish());
        result
    });
    result.map_err(|error: DeviceError| error.to_string())?
}

pub(super) fn run(common: &Common) -> Result<bool, String> {
    let configuration = common.configuration()?;
    let seconds = configuration.trial_seconds().map_err(|error| error.to_string())?;
    let rate = configuration.trial_rate();
    let trial = with_runner(&configuration, |runner, _| {
        runner.trial(rate, seconds).map_err(|error| error.to_string())
    })?;
    print(common, "run", trial.clean, &trial, &text::trial(&trial))
}

pub(super) fn search(common: &Common) -> Result<bool, String> {
    let configuration = common.configuration()?;
    let goal = configuration.search_goal().map_err(|error| error.to_string())?;
    let result = with_runner(&configuration, |runner, _| {
        let mut failure = None;
        let result = search::search(goal, &mut |rate, seconds| {
            runner.trial(Some(rate), seconds).unwrap_or_else(|error| {
                failure.get_or_insert(error);
                Trial::none()
            })
        });
        failure.map_or(Ok(result), |error| Err(error.to_string()))
    })?;
    print_search(common, "search", &result)
}

fn print_search(common: &Common, test: &str, result: &SearchResult) -> Result<bool, String> {
    print(common, test, result.rate.is_some(), result, &text::search(test, result))
}

pub(super) fn establishment(common: &Common) -> Result<bool, String> {
    let configuration = common.configuration()?;
    let goal = configuration.search_goal().map_err(|error| error.to_string())?;
    let settings = configuration.nat_settings().map_err(|error| error.to_string())?;
    let result = with_runner(&configuration, |runner, commands| {
        nat::establishment_rate(runner, &settings, goal, &mut || commands.clear())
            .map_err(|error| error.to_string())
    })?;
    print_search(common, "establishment", &result)
}

enum TearDown {
    ByCommand(CommandTearDown),
    OneByOne(Box<SearchResult>),
}

pub(super) fn tear_down(common: &Common) -> Result<bool, String> {
    let configuration = common.configuration()?;
    let goal = configuration.search_goal().map_err(|error| error.to_string())?;
    let settings = configuration.nat_settings().map_err(|error| error.to_string())?;
    let result = with_runner(&configuration, |runner, commands| {
        let clear: nat::Clear<'_> = &mut || commands.clear();
        let done = match &commands.delete {
            Some(command) => {
                let delete: nat::Clear<'_> = &mut || commands.call(command);
                nat::tear_down_by_command(runner, &settings, clear, delete).map(TearDown::ByCommand)
            }
            None => nat::closing_rate(runner, &settings, goal, clear)
                .map(|result| TearDown::OneByOne(Box::new(result))),
        };
        done.map_err(|error| error.to_string())
    })?;
    match result {
        TearDown::OneByOne(result) => print_search(common, "tear-down", &result),
        TearDown::ByCommand(result) => {
            let good = result.remaining == 0 && result.connections == u64::from(settings.connections);
            print(common, "tear-down", good, &result, &text::tear_down(&result))
        }
    }
}

pub(super) fn capacity(common: &Common) -> Result<bool, String> {
    let configuration = common.configuration()?;
    let settings = configuration.nat_settings().map_err(|error| error.to_string())?;
    let goal = configuration.capacity_goal().map_err(|error| error.to_string())?;
    let result: Capacity = with_runner(&configuration, |runner, commands| {
        nat::table_capacity(runner, &settings, &goal, &mut || commands.clear())
            .map_err(|error| error.to_string())
    })?;
    print(common, "capacity", result.connections.is_some(), &result, &text::capacity(&result))
}
