//! Runs this program under callgrind and reads what that wrote: one part for each kind. The format is in valgrind's manual,
//! "Callgrind Format Specification".

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

/// Functions that take memory; what calls them allocates.
const ALLOCATORS: [&str; 6] = ["malloc", "calloc", "realloc", "aligned_alloc", "memalign", "posix_memalign"];

/// Processor features that glibc must not use: its copies then take the same instructions on every machine.
const SAME_LIBRARY_EVERYWHERE: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-ERMS,-FSRM,\
     -AVX_Fast_Unaligned_Load,-Prefer_No_VZEROUPPER";

/// Why nothing could be counted.
#[derive(Debug, Error)]
pub(crate) enum CountError {
    #[error("valgrind does not start ({0}); install it: apt-get install valgrind")]
    Valgrind(#[source] std::io::Error),
    #[error("the run under valgrind failed ({status}):\n{output}")]
    Run { status: std::process::ExitStatus, output: String },
    #[error("no place for callgrind's output in {folder}: {source}", folder = folder.display())]
    Folder { folder: PathBuf, source: std::io::Error },
    #[error("callgrind's output for {kind:?} cannot be read ({why}); is this another valgrind than 3.19?")]
    Part { kind: String, why: String },
}

/// What one kind costs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Count {
    pub(crate) kind: String,
    /// Instructions for each operation.
    pub(crate) instructions: f64,
    /// Calls that take memory, all together.
    pub(crate) allocations: u64,
}

/// Runs all kinds and gives what each costs, in order.
pub(crate) fn count() -> Result<Vec<Count>, CountError> {
    let folder = std::env::temp_dir().join(format!("pollgate-instructions.{}", std::process::id()));
    std::fs::create_dir(&folder).map_err(|source| CountError::Folder { folder: folder.clone(), source })?;
    let counted = run(&folder);
    // What cannot be removed is a few megabytes in the temporary folder, and no reason to lose the counts.
    let _ = std::fs::remove_dir_all(&folder);
    counted
}

fn run(folder: &Path) -> Result<Vec<Count>, CountError> {
    let program = std::env::current_exe().map_err(CountError::Valgrind)?;
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", folder.join("part").display()))
        // By pattern: the names are mangled, or not, as the compiler pleases.
        .args(["--toggle-collect=*counted_region*", "--dump-before=*kind_ends*"])
        .arg(program)
        .arg("--measure")
        // Functions of libraries are found before the first call, not in it.
        .env("LD_BIND_NOW", "1")
        .env("GLIBC_TUNABLES", SAME_LIBRARY_EVERYWHERE)
        .stdin(Stdio::null())
        .output()
        .map_err(CountError::Valgrind)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(CountError::Run { status: output.status, output: text });
    }
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let kinds = listing.lines().filter_map(|line| line.split_once('\t'));
    kinds
        .enumerate()
        .map(|(index, (kind, operations))| {
            let file = folder.join(format!("part.{}", index + 1));
            let complaint = |why: String| CountError::Part { kind: kind.to_owned(), why };
            let text = std::fs::read_to_string(&file).map_err(|error| complaint(error.to_string()))?;
            let operations: f64 = operations.parse().map_err(|_| complaint(format!("{operations:?}")))?;
            let total = total(&text).ok_or_else(|| complaint("no total".to_owned()))?;
            let kind = kind.to_owned();
            Ok(Count { kind, instructions: total as f64 / operations, allocations: allocations(&text) })
        })
        .collect()
}

/// Instructions of one part.
fn total(part: &str) -> Option<u64> {
    part.lines().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

/// Calls in one part that take memory. A name stands once in a file; later lines have its number alone.
fn allocations(part: &str) -> u64 {
    let mut names = HashMap::new();
    let (mut called, mut sum) = ("", 0);
    for line in part.lines() {
        if let Some((number, name)) = function(line) {
            let known = names.entry(number).or_insert(name);
            if !name.is_empty() {
                *known = name;
            }
            if line.starts_with('c') {
                called = known;
            }
        } else if let Some(calls) = line.strip_prefix("calls=")
            && ALLOCATORS.contains(&called)
        {
            sum += calls.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
        }
    }
    sum
}

/// Number and name in a line `fn=(7) name` or `cfn=(7)`.
fn function(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("fn=(").or_else(|| line.strip_prefix("cfn=("))?;
    let (number, name) = rest.split_once(')')?;
    Some((number, name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: &str = "# callgrind format\nevents: Ir\nfn=(1) work\n12 40\ncfn=(2) malloc\ncalls=3 0\n12 300\n\
                        cfn=(3) memcpy\ncalls=9 0\n12 90\nfn=(3)\n1 90\ncfn=(2)\ncalls=2 0\n1 9\n\
                        fn=(2)\n1 309\ntotals: 439\n";

    #[test]
    fn totals_and_allocations_are_read() {
        assert_eq!((total(PART), allocations(PART)), (Some(439), 5));
        assert_eq!((total("events: Ir\n"), allocations("")), (None, 0));
    }
}
