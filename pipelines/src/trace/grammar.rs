//! A packet in words: `tcp 10.0.0.2:40000 > 10.254.80.22:80 flags S ttl 64 len 60 df`.
//!
//! **Invariant:** what is printed of a packet that was read parses back to the same one.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use engine::wire::tcp::FLAG_SYN;

use super::packet::FLAGS;
pub use super::packet::{Addresses, PacketSpec, Transport, flag_letters};

/// Hop limit when none is given: the default of RFC 1122, section 3.2.1.7, as registered with IANA.
const TIME_TO_LIVE: u8 = 64;
/// Identifier of an echo when none is given.
const IDENTIFIER: u16 = 1;
/// Characters of a word that are repeated in a message.
const QUOTED_MAX: usize = 40;

const ENDPOINT: &str =
    "an IPv4 address and a port, as in 10.0.0.2:40000, or IPv6 in brackets, as in [fd00::1]:80";
const ADDRESS: &str = "an IPv4 address, as in 10.0.0.2, or IPv6 in brackets, as in [fd00::1]";
const OPTIONS: &str = "`flags S`, `ttl N`, `len N`, `df`, `id N` or the end";

/// Where a packet's text is wrong, and what is wanted there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packet, column {column}: {wrong}; expected {expected}")]
pub struct ParsePacketError {
    /// Which character, counted from one.
    pub column: usize,
    /// What is there.
    pub wrong: String,
    /// What is wanted.
    pub expected: String,
}

#[derive(Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    column: usize,
}

impl Word<'_> {
    fn error(&self, wrong: impl Into<String>, expected: impl Into<String>) -> ParsePacketError {
        ParsePacketError { column: self.column, wrong: wrong.into(), expected: expected.into() }
    }

    /// The word, in quotes, or what stands for its absence.
    fn quoted(&self) -> String {
        match self.text.char_indices().nth(QUOTED_MAX) {
            _ if self.text.is_empty() => "the text ends".to_owned(),
            Some((end, _)) => format!("`{}...`", self.text.get(..end).unwrap_or_default()),
            None => format!("`{}`", self.text),
        }
    }

    fn unexpected(&self, expected: impl Into<String>) -> ParsePacketError {
        self.error(self.quoted(), expected)
    }
}

/// Words with their places; `>` is one by itself.
struct Words<'a> {
    text: &'a str,
    column: usize,
}

impl<'a> Words<'a> {
    fn skip_space(&mut self) {
        let rest = self.text.trim_start();
        self.column += self.text.chars().count() - rest.chars().count();
        self.text = rest;
    }

    /// The next word; an empty one at the end.
    fn next(&mut self) -> Word<'a> {
        self.skip_space();
        let is_end = |character: char| character.is_whitespace() || character == '>';
        let length = match self.text.find(is_end) {
            Some(0) => 1,
            Some(end) => end,
            None => self.text.len(),
        };
        let (text, rest) = self.text.split_at(length);
        let word = Word { text, column: self.column };
        self.column += text.chars().count();
        self.text = rest;
        word
    }
}

impl FromStr for PacketSpec {
    type Err = ParsePacketError;

    fn from_str(text: &str) -> Result<Self, ParsePacketError> {
        let mut words = Words { text, column: 1 };
        let protocol = words.next();
        let mut packet = match protocol.text {
            "tcp" => with_ports(&mut words, |from, to| Transport::Tcp(from, to, FLAG_SYN))?,
            "udp" => with_ports(&mut words, Transport::Udp)?,
            "sctp" => with_ports(&mut words, Transport::Sctp)?,
            "icmp" => {
                let kind = words.next();
                if kind.text != "echo" {
                    return Err(kind.unexpected("`echo`: of ICMP, echo requests alone begin a flow"));
                }
                without_ports(&mut words, Transport::Echo(IDENTIFIER))?
            }
            "gre" => without_ports(&mut words, Transport::Gre)?,
            _ => return Err(protocol.unexpected("`tcp`, `udp`, `sctp`, `icmp echo` or `gre`")),
        };
        options(&mut words, &mut packet)?;
        Ok(packet)
    }
}

fn with_ports(
    words: &mut Words<'_>,
    transport: impl Fn(u16, u16) -> Transport,
) -> Result<PacketSpec, ParsePacketError> {
    let (source, from) = endpoint(words.next())?;
    arrow(words)?;
    let word = words.next();
    let (destination, to) = endpoint(word)?;
    packet(source, destination, word, transport(from, to))
}

fn without_ports(words: &mut Words<'_>, transport: Transport) -> Result<PacketSpec, ParsePacketError> {
    let source = address(words.next())?;
    arrow(words)?;
    let word = words.next();
    packet(source, address(word)?, word, transport)
}

/// `word` is where the destination stands.
fn packet(
    source: IpAddr,
    destination: IpAddr,
    word: Word<'_>,
    transport: Transport,
) -> Result<PacketSpec, ParsePacketError> {
    let addresses = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Addresses::V4(source, destination),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Addresses::V6(source, destination),
        (IpAddr::V4(_), _) => {
            let wrong = format!("{} is IPv6, and the source is IPv4", word.quoted());
            return Err(word.error(wrong, "both of one family"));
        }
        (IpAddr::V6(_), _) => {
            let wrong = format!("{} is IPv4, and the source is IPv6", word.quoted());
            return Err(word.error(wrong, "both of one family"));
        }
    };
    let time_to_live = TIME_TO_LIVE;
    let packet = PacketSpec { addresses, transport, time_to_live, length: 0, dont_fragment: false };
    Ok(PacketSpec { length: packet.length_min(), ..packet })
}

fn arrow(words: &mut Words<'_>) -> Result<(), ParsePacketError> {
    let word = words.next();
    if word.text == ">" { Ok(()) } else { Err(word.unexpected("`>` and the destination")) }
}

fn endpoint(word: Word<'_>) -> Result<(IpAddr, u16), ParsePacketError> {
    let (address, rest) = leading_address(word, ENDPOINT)?;
    // A colon in what is no address yet is the address's own to miss.
    match (rest.strip_prefix(':').and_then(decimal), rest.is_empty()) {
        (Some(port), _) if port <= u64::from(u16::MAX) => Ok((address, port as u16)),
        (_, true) => Err(word.unexpected(ENDPOINT)),
        _ => Err(word.error(format!("{} has no port from 0 to 65535", word.quoted()), ENDPOINT)),
    }
}

fn address(word: Word<'_>) -> Result<IpAddr, ParsePacketError> {
    match leading_address(word, ADDRESS)? {
        (address, "") => Ok(address),
        (_, rest) if rest.starts_with(':') => {
            Err(word.error(format!("{} has a port, and the protocol has none", word.quoted()), ADDRESS))
        }
        _ => Err(word.unexpected(ADDRESS)),
    }
}

/// The address that a word begins with, and the rest of the word.
fn leading_address<'a>(word: Word<'a>, expected: &str) -> Result<(IpAddr, &'a str), ParsePacketError> {
    if let Some((inside, rest)) = word.text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let address = inside.parse::<Ipv6Addr>().map_err(|_| word.unexpected(expected))?;
        return Ok((address.into(), rest));
    }
    if word.text.parse::<Ipv6Addr>().is_ok() {
        let wrong = format!("{} is IPv6 without brackets", word.quoted());
        return Err(word.error(wrong, expected));
    }
    let end = word.text.find(':').unwrap_or(word.text.len());
    let (address, rest) = word.text.split_at(end);
    let address = address.parse::<Ipv4Addr>().map_err(|_| word.unexpected(expected))?;
    Ok((address.into(), rest))
}

/// A number of decimal digits and nothing else.
fn decimal(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn options(words: &mut Words<'_>, packet: &mut PacketSpec) -> Result<(), ParsePacketError> {
    let mut seen: Vec<&str> = Vec::new();
    loop {
        let word = words.next();
        if word.text.is_empty() {
            return Ok(());
        }
        if seen.contains(&word.text) {
            return Err(word.error(format!("{} is there twice", word.quoted()), "it once"));
        }
        seen.push(word.text);
        let length_min = packet.length_min();
        match (word.text, &mut packet.transport) {
            ("flags", Transport::Tcp(_, _, flags)) => *flags = tcp_flags(words.next())?,
            ("flags", _) => return Err(word.error("`flags` is TCP's", "`ttl N`, `len N`, `df` or the end")),
            ("id", Transport::Echo(identifier)) => *identifier = number(words.next(), 0..=u16::MAX)?,
            ("id", _) => return Err(word.error("`id` is an echo's", "`ttl N`, `len N`, `df` or the end")),
            ("ttl", _) => packet.time_to_live = number(words.next(), 0..=255)? as u8,
            ("len", _) => packet.length = number(words.next(), length_min..=u16::MAX)?,
            ("df", _) => packet.dont_fragment = true,
            _ => return Err(word.unexpected(OPTIONS)),
        }
    }
}

fn number(word: Word<'_>, range: core::ops::RangeInclusive<u16>) -> Result<u16, ParsePacketError> {
    let found = decimal(word.text).and_then(|number| u16::try_from(number).ok());
    found
        .filter(|number| range.contains(number))
        .ok_or_else(|| word.unexpected(format!("a number from {} to {}", range.start(), range.end())))
}

fn tcp_flags(word: Word<'_>) -> Result<u8, ParsePacketError> {
    if word.text == "none" {
        return Ok(0);
    }
    let mut flags = 0;
    for letter in word.text.chars() {
        let letter = if letter == '.' { 'A' } else { letter };
        let bit = FLAGS.iter().position(|known| *known == letter).map(|bit| 1u8 << bit);
        match bit {
            Some(bit) if flags & bit == 0 => flags |= bit,
            _ => flags = 0,
        }
        if flags == 0 {
            break;
        }
    }
    let expected = "TCP flags, each once: F, S, R, P, A or a dot, U, E, W; or `none`";
    if flags == 0 { Err(word.unexpected(expected)) } else { Ok(flags) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> PacketSpec {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_form_is_read() {
        for (text, printed) in [
            ("tcp 10.0.0.2:40000 > 10.254.80.22:80", "flags S ttl 64 len 40"),
            ("tcp 10.0.0.2:1>10.254.80.22:80 df len 1500 ttl 1 flags SA", "flags SA ttl 1 len 1500 df"),
            ("tcp 10.0.0.2:1 > 10.0.0.3:0 flags F.", "flags FA ttl 64 len 40"),
            ("tcp 10.0.0.2:1 > 10.0.0.3:0 flags none", "flags none ttl 64 len 40"),
            ("  udp\t1.2.3.4:5 > 6.7.8.9:10  ", "ttl 64 len 28"),
            ("sctp 1.2.3.4:5 > 6.7.8.9:10 len 32", "ttl 64 len 32"),
            ("icmp echo 1.2.3.4 > 6.7.8.9 id 77", "id 77 ttl 64 len 28"),
            ("icmp echo 1.2.3.4 > 6.7.8.9", "id 1 ttl 64 len 28"),
            ("gre 1.2.3.4 > 6.7.8.9 ttl 0", "ttl 0 len 24"),
            ("sctp 1.2.3.4:5 > 6.7.8.9:10 df ttl 7 len 33", "ttl 7 len 33 df"),
            ("icmp echo 1.2.3.4 > 6.7.8.9 df ttl 3 id 0 len 84", "id 0 ttl 3 len 84 df"),
            (
                "tcp [2001:db8::1]:1000>[fd00::1]:80",
                "tcp [2001:db8::1]:1000 > [fd00::1]:80 flags S ttl 64 len 60",
            ),
            (
                "icmp echo [2001:DB8:0::1] > [fd00::1]",
                "icmp echo [2001:db8::1] > [fd00::1] id 1 ttl 64 len 48",
            ),
            ("gre [::] > [::ffff:1.2.3.4] df", "gre [::] > [::ffff:1.2.3.4] ttl 64 len 44 df"),
        ] {
            let packet = parse(text);
            let all = packet.to_string();
            assert!(all.ends_with(printed), "{text}: {all}");
            assert_eq!(parse(&all), packet);
        }
    }

    #[test]
    fn what_is_wrong_is_said_where_it_is() {
        for (text, message) in [
            ("", "column 1: the text ends; expected `tcp`, `udp`"),
            ("tpc 1.2.3.4:5 > 6.7.8.9:10", "column 1: `tpc`; expected `tcp`"),
            ("tcp 1.2.3.4 > 6.7.8.9:10", "column 5: `1.2.3.4`; expected an IPv4 address and a port"),
            ("tcp 1.2.3.4:70000 > 6.7.8.9:10", "column 5: `1.2.3.4:70000` has no port from 0 to 65535"),
            ("tcp 1.2.3.4:+5 > 6.7.8.9:10", "column 5: `1.2.3.4:+5` has no port"),
            ("tcp 1.2.3.4:5 6.7.8.9:10", "column 15: `6.7.8.9:10`; expected `>`"),
            ("tcp 1.2.3.4:5 >", "column 16: the text ends; expected an IPv4 address and a port"),
            ("tcp [2001:db8::1]:5 > 6.7.8.9:10", "column 23: `6.7.8.9:10` is IPv4, and the source is IPv6"),
            (
                "tcp 6.7.8.9:10 > [2001:db8::1]:5",
                "column 18: `[2001:db8::1]:5` is IPv6, and the source is IPv4",
            ),
            (
                "icmp echo [::1] > 6.7.8.9",
                "column 19: `6.7.8.9` is IPv4, and the source is IPv6; expected both",
            ),
            ("gre 2001:db8::1 > 6.7.8.9", "column 5: `2001:db8::1` is IPv6 without brackets"),
            ("tcp 2001:db8::1:5 > [::1]:6", "column 5: `2001:db8::1:5` is IPv6 without brackets"),
            ("tcp [2001:db8::1] > [::1]:6", "column 5: `[2001:db8::1]`; expected an IPv4 address and a port"),
            ("tcp [2001:db8::1]5 > [::1]:6", "column 5: `[2001:db8::1]5` has no port"),
            ("tcp [1.2.3.4]:5 > [::1]:6", "column 5: `[1.2.3.4]:5`; expected"),
            ("tcp [fe80::1%eth0]:5 > [::1]:6", "column 5: `[fe80::1%eth0]:5`; expected"),
            ("tcp [::1:5 > [::1]:6", "column 5: `[::1:5`; expected"),
            ("gre [::1]:5 > [::2]", "column 5: `[::1]:5` has a port, and the protocol has none"),
            ("udp [::1]:5 > [::2]:6 len 47", "column 27: `47`; expected a number from 48 to 65535"),
            ("icmp reply 1.2.3.4 > 6.7.8.9", "column 6: `reply`; expected `echo`"),
            ("gre 1.2.3.4:5 > 6.7.8.9", "column 5: `1.2.3.4:5` has a port, and the protocol has none"),
            ("udp 1.2.3.4:5 > 6.7.8.9:10 flags S", "column 28: `flags` is TCP's"),
            ("udp 1.2.3.4:5 > 6.7.8.9:10 id 3", "column 28: `id` is an echo's"),
            ("udp 1.2.3.4:5 > 6.7.8.9:10 ttl 256", "column 32: `256`; expected a number from 0 to 255"),
            ("udp 1.2.3.4:5 > 6.7.8.9:10 len 27", "column 32: `27`; expected a number from 28 to 65535"),
            ("udp 1.2.3.4:5 > 6.7.8.9:10 ttl", "column 31: the text ends; expected a number"),
            ("udp 1.2.3.4:5 > 6.7.8.9:10 df df", "column 31: `df` is there twice"),
            ("tcp 1.2.3.4:5 > 6.7.8.9:10 flags SS", "column 34: `SS`; expected TCP flags, each once"),
            ("tcp 1.2.3.4:5 > 6.7.8.9:10 flags X", "column 34: `X`; expected TCP flags"),
            ("tcp 1.2.3.4:5 > 6.7.8.9:10 fast", "column 28: `fast`; expected `flags S`"),
            ("tcp ü.2.3.4:5 > 6", "column 5: `ü.2.3.4:5`"),
        ] {
            let error = text.parse::<PacketSpec>().unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    fn transports() -> impl Strategy<Value = Transport> {
        prop_oneof![
            any::<(u16, u16, u8)>().prop_map(|(from, to, flags)| Transport::Tcp(from, to, flags)),
            any::<(u16, u16)>().prop_map(|(from, to)| Transport::Udp(from, to)),
            any::<(u16, u16)>().prop_map(|(from, to)| Transport::Sctp(from, to)),
            any::<u16>().prop_map(Transport::Echo),
            Just(Transport::Gre),
        ]
    }

    fn addresses() -> impl Strategy<Value = Addresses> {
        prop_oneof![
            any::<(u32, u32)>().prop_map(|(from, to)| Addresses::V4(from.into(), to.into())),
            any::<(u128, u128)>().prop_map(|(from, to)| Addresses::V6(from.into(), to.into())),
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(
            (addresses, transport) in (addresses(), transports()),
            (time_to_live, length, dont_fragment) in any::<(u8, u16, bool)>(),
        ) {
            let packet = PacketSpec { addresses, transport, time_to_live, length, dont_fragment };
            let packet = PacketSpec { length: length.max(packet.length_min()), ..packet };
            prop_assert_eq!(packet.to_string().parse(), Ok(packet));
        }

        #[test]
        fn any_text_is_read_or_refused_inside_it(text in "\\PC*") {
            if let Err(error) = text.parse::<PacketSpec>() {
                prop_assert!((1..=text.chars().count() + 1).contains(&error.column));
            }
        }

        #[test]
        fn any_words_of_the_grammar_are_read_or_refused(
            words in proptest::collection::vec(prop::sample::select(vec![
                "tcp", "udp", "icmp", "echo", "gre", ">", "1.2.3.4:5", "1.2.3.4", "[::1]:5", "[::1]", "flags", "S", "ttl",
                "len", "9", "99", "df", "id", "none", "99999999999999999999",
            ]), 0..14),
        ) {
            let text = words.join(" ");
            match text.parse::<PacketSpec>() {
                Ok(packet) => prop_assert_eq!(packet.to_string().parse(), Ok(packet)),
                Err(error) => prop_assert!((1..=text.chars().count() + 1).contains(&error.column)),
            }
        }
    }
}
