//! `traffic.sizes`: a size, a name, or a list.

use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::sizes::{SizeError, SizeMix};

/// Frame sizes, check sequence included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// The simple IMIX.
    Imix,
    /// One size.
    One(u16),
    /// Several.
    Mix(Vec<SizePart>),
}

/// One size of a mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizePart {
    /// The size.
    pub bytes: u16,
    /// Its share.
    pub weight: u32,
}

impl<'de> Deserialize<'de> for Sizes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            One(u16),
            Name(String),
            Mix(Vec<SizePart>),
        }
        let wanted = "a size, \"imix\", or a list of { bytes = 64, weight = 7 } is wanted";
        match Form::deserialize(deserializer).map_err(|_| de::Error::custom(wanted))? {
            Form::One(size) => Ok(Self::One(size)),
            Form::Name(name) if name == "imix" => Ok(Self::Imix),
            Form::Name(_) => Err(de::Error::custom(wanted)),
            Form::Mix(parts) => Ok(Self::Mix(parts)),
        }
    }
}

impl Sizes {
    pub(super) fn mix(&self) -> Result<SizeMix, SizeError> {
        match self {
            Self::Imix => Ok(SizeMix::imix()),
            Self::One(size) => SizeMix::new(&[(*size, 1)]),
            Self::Mix(parts) => {
                SizeMix::new(&parts.iter().map(|part| (part.bytes, part.weight)).collect::<Vec<_>>())
            }
        }
    }
}
