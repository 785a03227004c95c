//! The kinds of values that stand in a configuration file, each refused for reasons that name what would be right.

mod addresses;
mod device;
mod health_check;

use std::path::PathBuf;

use toml::de::DeValue;

use super::model::{Algorithm, DpdkMemory, Idle, PortRole, Protocol};
use super::readable::{Fault, Readable, closest};

pub(crate) use addresses::InterfaceAddress;
pub(crate) use device::{Device, device_argument, is_pci_address};
pub(crate) use health_check::{HttpPath, ProbeKind, StatusRange};

fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Fault> {
    value.as_str().ok_or(Fault::Type)
}

fn content<T>(wrong: impl Into<String>, right: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Content(wrong.into(), right.into()))
}

impl Readable for bool {
    const WANTED: &'static str = "true or false";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        value.as_bool().ok_or(Fault::Type)
    }
}

/// Free text without control characters: it is shown in logs and given to C libraries.
impl Readable for String {
    const WANTED: &'static str = "a string";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = text(value)?;
        if text.chars().any(char::is_control) {
            return content("which holds a control character", "write visible characters alone");
        }
        Ok(text.to_owned())
    }
}

/// The name of a port or an interface.
pub(crate) struct InterfaceText(pub(crate) String);

impl Readable for InterfaceText {
    const WANTED: &'static str = "a string";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = text(value)?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
            return content("which is no name", "use 1 to 64 letters, digits, dots, dashes and underscores");
        }
        Ok(Self(text.to_owned()))
    }
}

/// A name of Kubernetes (service, namespace, service port): a DNS label, RFC 1123 section 2.1.
pub(crate) struct Label(pub(crate) String);

impl Readable for Label {
    const WANTED: &'static str = "a string";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = text(value)?;
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let ends = text.starts_with('-') || text.ends_with('-');
        if text.is_empty() || text.len() > 63 || ends || !text.bytes().all(allowed) {
            return content(
                "which is no DNS label",
                "use 1 to 63 small letters, digits and dashes, with no dash at either end",
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// A Unix socket's path.
impl Readable for PathBuf {
    const WANTED: &'static str = "a string";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = String::read(value)?;
        // The kernel's sun_path holds 108 bytes with the closing zero, unix(7).
        if !text.starts_with('/') || text.ends_with('/') || text.len() > 107 {
            return content(
                "which cannot be a socket's path",
                "write the full path of a file, of 107 bytes at the most, as in \"/run/pollgate/control.sock\"",
            );
        }
        Ok(Self::from(text))
    }
}

/// First and last port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl PortRange {
    pub(crate) fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl core::fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "{}-{}", self.first, self.last)
    }
}

impl Readable for PortRange {
    const WANTED: &'static str = "a string with the first and the last port, as in \"30000-32767\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let ends = text(value)?.split_once('-').and_then(|(first, last)| {
            Some((first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?))
        });
        match ends {
            Some((first, last)) if first > last => content(
                "whose first port is above its last",
                format!("write the smaller one first: \"{last}-{first}\""),
            ),
            Some((first, last)) if first > 0 => Ok(Self { first, last }),
            _ => content(
                "which is no range of ports",
                "write the first and the last, from 1 to 65535, with a dash, as in \"30000-32767\"",
            ),
        }
    }
}

/// One of a few words.
fn choice<T: Copy>(value: &DeValue<'_>, choices: &[(&'static str, T)]) -> Result<T, Fault> {
    let text = text(value)?;
    if let Some((_, chosen)) = choices.iter().find(|(word, _)| *word == text) {
        return Ok(*chosen);
    }
    let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    let near = closest(&text.to_ascii_lowercase(), choices.iter().map(|(word, _)| *word));
    let right = near.map_or_else(
        || format!("write one of {}", words.join(", ")),
        |word| format!("did you mean \"{word}\"?"),
    );
    content(format!("not one of {}", words.join(", ")), right)
}

impl Readable for DpdkMemory {
    const WANTED: &'static str = "\"auto\", \"huge\" or \"none\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        choice(value, &[("auto", Self::Auto), ("huge", Self::Huge), ("none", Self::None)])
    }
}

impl Readable for Idle {
    const WANTED: &'static str = "\"poll\" or \"sleep\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        choice(value, &[("poll", Self::Poll), ("sleep", Self::Sleep)])
    }
}

impl Readable for PortRole {
    const WANTED: &'static str = "\"underlay\" or \"pod\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        choice(value, &[("underlay", Self::Underlay), ("pod", Self::Pod)])
    }
}

impl Readable for Algorithm {
    const WANTED: &'static str = "\"random\" or \"maglev\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        choice(value, &[("random", Self::Random), ("maglev", Self::Maglev)])
    }
}

/// A file or folder.
pub(crate) struct AnyPath(pub(crate) PathBuf);

impl Readable for AnyPath {
    const WANTED: &'static str = "a string";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = String::read(value)?;
        if text.is_empty() || text.contains('\0') {
            return content("which is no path", "name a file or a folder");
        }
        Ok(Self(text.into()))
    }
}

impl Readable for Protocol {
    const WANTED: &'static str = "\"tcp\", \"udp\" or \"sctp\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        choice(value, &[("tcp", Self::Tcp), ("udp", Self::Udp), ("sctp", Self::Sctp)])
    }
}

#[cfg(test)]
mod tests {
    use crate::control::config::testing::expect_at_value;

    #[test]
    fn ranges_of_ports_have_two_ends() {
        let range = |value: &str, said: &str| {
            expect_at_value(
                "node_port_range = \"30000-32767\"",
                "node_port_range",
                value,
                "services.node_port_range",
                said,
            );
        };
        range("\"30000\"", "which is no range of ports");
        range("\"0-32767\"", "which is no range of ports");
        range("\"32767-30000\"", "write the smaller one first: \"30000-32767\"");
        range(
            "[30000, 32767]",
            "`node_port_range` is an array; write a string with the first and the last port",
        );
    }

    #[test]
    fn words_are_those_that_are_known() {
        expect_at_value(
            "memory = \"none\"",
            "memory",
            "\"hugh\"",
            "dpdk.memory",
            "\"none\"; did you mean \"huge\"?",
        );
        expect_at_value("idle = \"sleep\"", "idle", "\"Poll\"", "workers.idle", "did you mean \"poll\"?");
        expect_at_value(
            "idle = \"sleep\"",
            "idle",
            "\"doze off\"",
            "workers.idle",
            "write one of \"poll\", \"sleep\"",
        );
        expect_at_value(
            "protocol = \"udp\"",
            "protocol",
            "\"dccp\"",
            "service[3].ports[0].protocol",
            "\"sctp\"",
        );
    }

    #[test]
    fn names_are_fit_for_what_they_name() {
        expect_at_value("name = \"docker0\"", "name", "\"docker 0\"", "bridge.name", "use 1 to 64 letters");
        expect_at_value("name = \"docker0\"", "name", "\"\"", "bridge.name", "which is no name");
        for name in ["Business", "-a", "a-", "a.b", ""] {
            let value = format!("\"{name}\"");
            expect_at_value(
                "name = \"business-manager\"",
                "name",
                &value,
                "service[0].name",
                "which is no DNS label",
            );
        }
        expect_at_value("name = \"node-1\"", "name", "\"a\\tb\"", "node.name", "holds a control character");
        expect_at_value(
            "socket = \"/run/pollgate/control.sock\"",
            "socket",
            "\"control.sock\"",
            "control.socket",
            "write the full path",
        );
    }

    #[test]
    fn long_texts_are_cut() {
        let long = "x".repeat(100);
        let said = format!("`name` is \"{}...\", which", "x".repeat(60));
        expect_at_value("name = \"docker0\"", "name", &format!("\"{long}\""), "bridge.name", &said);
    }
}
