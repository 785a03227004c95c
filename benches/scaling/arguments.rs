//! The command line, without a library: names, and lists of numbers.

pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    pub(crate) fn of_process() -> Self {
        // Cargo says `--bench` to every benchmark.
        Self(std::env::args().skip(1).filter(|argument| argument != "--bench").collect())
    }

    /// The first word that is no option.
    pub(crate) fn command(&self) -> Option<&str> {
        self.0.first().map(String::as_str).filter(|word| !word.starts_with('-'))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    pub(crate) fn is_quick(&self) -> bool {
        self.has("--quick")
    }

    /// The word behind an option.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let place = self.0.iter().position(|argument| argument == name)?;
        Some(self.0.get(place + 1).unwrap_or_else(|| panic!("{name} needs a value")))
    }

    /// A number, or what it is by default.
    pub(crate) fn number(&self, name: &str, default: usize) -> usize {
        self.value(name).map_or(default, |text| number(name, text))
    }

    /// Numbers with commas between them.
    pub(crate) fn numbers(&self, name: &str, default: &[usize]) -> Vec<usize> {
        self.value(name)
            .map_or(default.to_vec(), |text| text.split(',').map(|text| number(name, text)).collect())
    }

    /// As [`Self::number`], with another default for a quick run.
    pub(crate) fn number_or(&self, name: &str, quick: usize, default: usize) -> usize {
        self.number(name, if self.is_quick() { quick } else { default })
    }
}

fn number(name: &str, text: &str) -> usize {
    text.parse().ok().filter(|number| *number > 0).unwrap_or_else(|| panic!("{name}: `{text}` is no number"))
}
