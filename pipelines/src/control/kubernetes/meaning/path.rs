//! Where in an object a value stands.

use core::fmt;

/// The path of a field, as in `subsets[0].addresses[3].ip`: up to three names with a list's place between them. Costs
/// nothing to make, since it is written out only where something is wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Path<'a> {
    names: [&'a str; 3],
    places: [Option<usize>; 2],
}

impl<'a> Path<'a> {
    /// A path without a list, as in `spec.type`, or up to the first one, as in `spec.ports`.
    pub(super) fn of(name: &'a str) -> Self {
        Self { names: [name, "", ""], places: [None, None] }
    }

    /// An element of the list that the path names.
    pub(super) fn item(mut self, place: usize) -> Self {
        if let Some(free) = self.places.iter_mut().find(|known| known.is_none()) {
            *free = Some(place);
        }
        self
    }

    /// A field of the element that the path names.
    pub(super) fn field(mut self, name: &'a str) -> Self {
        if let Some(free) = self.names.iter_mut().find(|known| known.is_empty()) {
            *free = name;
        }
        self
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (level, name) in self.names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let dot = if level == 0 { "" } else { "." };
            write!(formatter, "{dot}{name}")?;
            if let Some(Some(place)) = self.places.get(level) {
                write!(formatter, "[{place}]")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_people_write_paths() {
        assert_eq!(Path::of("spec.type").to_string(), "spec.type");
        assert_eq!(Path::of("spec.externalIPs").item(2).to_string(), "spec.externalIPs[2]");
        assert_eq!(Path::of("spec.ports").item(0).field("name").to_string(), "spec.ports[0].name");
        let path = Path::of("subsets").item(1).field("addresses").item(3).field("ip");
        assert_eq!(path.to_string(), "subsets[1].addresses[3].ip");
    }
}
