//! The annotations that Pollgate defines. A bad one is reported and left out; it never keeps an object from being used.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::BTreeMap;

use super::check;
use super::notes::{Notes, shown};
use crate::control::config::model::Algorithm;

/// On a Service: how a backend is chosen, `random` or `maglev`.
pub(in crate::control::kubernetes) const ALGORITHM: &str = "pollgate.io/algorithm";
/// On a Service: weights of its endpoints by their address, as in `172.30.76.7=5, 172.30.9.3=0`.
pub(in crate::control::kubernetes) const WEIGHTS: &str = "pollgate.io/weights";
/// On a Pod, an EndpointSlice or an Endpoints object: the weight of its endpoints.
pub(in crate::control::kubernetes) const WEIGHT: &str = "pollgate.io/weight";

/// The annotations of an object.
pub(super) type Annotations = BTreeMap<String, String>;

/// `pollgate.io/algorithm`
pub(super) fn algorithm(annotations: Option<&Annotations>, notes: &mut Notes) -> Algorithm {
    match value(annotations, ALGORITHM) {
        None | Some("random") => Algorithm::Random,
        Some("maglev") => Algorithm::Maglev,
        Some(other) => {
            let wrong = format!("{} is no algorithm, so it is random", shown(other));
            notes.warning(path(ALGORITHM), wrong, "give \"random\" or \"maglev\"");
            Algorithm::Random
        }
    }
}

/// `pollgate.io/weight`
pub(super) fn weight(annotations: Option<&Annotations>, notes: &mut Notes) -> Option<u16> {
    let text = value(annotations, WEIGHT)?;
    let weight = weight_of(text);
    if weight.is_none() {
        let wrong = format!("{} is no weight, so it is left out", shown(text));
        notes.warning(path(WEIGHT), wrong, "give 0 to 65535, as in \"5\"; 0 drains");
    }
    weight
}

/// `pollgate.io/weights`: by address, in ascending order. One bad entry makes all of it void: half of a list of shares
/// would be shares that nobody meant.
pub(super) fn weights(annotations: Option<&Annotations>, notes: &mut Notes) -> Box<[(Ipv4Addr, u16)]> {
    let Some(text) = value(annotations, WEIGHTS) else { return Box::default() };
    match weights_of(text) {
        Ok(weights) => weights.into_iter().collect(),
        Err(wrong) => {
            let wrong = format!("{wrong}, so every weight here is left out");
            notes.warning(
                path(WEIGHTS),
                wrong,
                "give addresses and weights, as in \"172.30.76.7=5, 172.30.9.3=0\"",
            );
            Box::default()
        }
    }
}

fn weights_of(text: &str) -> Result<BTreeMap<Ipv4Addr, u16>, String> {
    let mut weights = BTreeMap::new();
    for entry in text.split(',').map(str::trim) {
        let (address, weight) =
            entry.split_once('=').ok_or_else(|| format!("{} is no address and weight", shown(entry)))?;
        let address: IpAddr =
            address.trim().parse().map_err(|_| format!("{} is no IP address", shown(address.trim())))?;
        let weight = weight_of(weight.trim())
            .ok_or_else(|| format!("{} is no weight from 0 to 65535", shown(weight.trim())))?;
        // Endpoints of IPv6 are not programmed, nor are their weights; but they may be written.
        if let IpAddr::V4(address) = address
            && weights.insert(address, weight).is_some()
        {
            return Err(format!("{address} has two weights"));
        }
    }
    Ok(weights)
}

fn weight_of(text: &str) -> Option<u16> {
    Some(text).filter(|text| check::is_plain_number(text))?.parse().ok()
}

fn value<'a>(annotations: Option<&'a Annotations>, name: &str) -> Option<&'a str> {
    annotations?.get(name).map(|text| text.trim())
}

/// The path of an annotation.
pub(super) fn path(name: &str) -> String {
    format!("metadata.annotations[{name}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(name: &str, text: &str) -> Annotations {
        Annotations::from([(name.to_owned(), text.to_owned())])
    }

    fn warned(notes: Notes) -> Option<String> {
        assert!(!notes.is_refused(), "an annotation never keeps an object from being used");
        notes.into_vec().pop().map(|note| note.wrong)
    }

    #[test]
    fn algorithms() {
        for (text, expected, wrong) in [
            ("random", Algorithm::Random, None),
            (" maglev ", Algorithm::Maglev, None),
            ("Maglev", Algorithm::Random, Some("`Maglev` is no algorithm, so it is random")),
            ("", Algorithm::Random, Some("`` is no algorithm, so it is random")),
        ] {
            let mut notes = Notes::default();
            assert_eq!(algorithm(Some(&annotations(ALGORITHM, text)), &mut notes), expected);
            assert_eq!(warned(notes).as_deref(), wrong);
        }
        assert_eq!(algorithm(None, &mut Notes::default()), Algorithm::Random);
    }

    #[test]
    fn one_weight() {
        for (text, expected) in [
            ("0", Some(0)),
            ("5", Some(5)),
            (" 65535", Some(65_535)),
            ("65536", None),
            ("-1", None),
            ("+1", None),
            ("05", None),
            ("", None),
            ("5 5", None),
        ] {
            let mut notes = Notes::default();
            assert_eq!(weight(Some(&annotations(WEIGHT, text)), &mut notes), expected, "{text}");
            assert_eq!(warned(notes).is_some(), expected.is_none(), "{text}");
        }
    }

    #[test]
    fn weights_by_address() {
        let read = |text: &str| {
            let mut notes = Notes::default();
            let weights = weights(Some(&annotations(WEIGHTS, text)), &mut notes);
            (weights, warned(notes))
        };
        let (weights, wrong) = read("172.30.76.7=5, 172.30.9.3 = 0,fd00::1=3");
        assert_eq!(wrong, None);
        assert_eq!(*weights, [(Ipv4Addr::new(172, 30, 9, 3), 0), (Ipv4Addr::new(172, 30, 76, 7), 5)]);
        for (text, wrong) in [
            ("", "`` is no address and weight, so every weight here is left out"),
            ("10.0.0.1=1,", "`` is no address and weight, so every weight here is left out"),
            ("10.0.0.1", "`10.0.0.1` is no address and weight, so every weight here is left out"),
            ("10.0.0.1=1,x=2", "`x` is no IP address, so every weight here is left out"),
            ("10.0.0.1=65536", "`65536` is no weight from 0 to 65535, so every weight here is left out"),
            ("10.0.0.1=1,10.0.0.1=2", "10.0.0.1 has two weights, so every weight here is left out"),
        ] {
            assert_eq!(read(text), (Box::default(), Some(wrong.to_owned())), "{text}");
        }
    }
}
