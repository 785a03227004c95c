//! Reads tables of a parsed file key by key. What cannot be read is noted and reading goes on, so that one look at a
//! file finds everything that is wrong with it.
//!
//! **Invariant:** a key that a section reads is known, and every other key in its table is noted as unknown: there is
//! no second list of keys that could fall behind. [`Mode::Listing`] reads an empty file as if every section were
//! there, which lists the keys.

use core::cell::RefCell;
use core::ops::RangeInclusive;
use std::collections::BTreeSet;

use toml::de::{DeTable, DeValue};

use super::notes::{At, Notes};
use super::readable::{Fault, Readable, closest, read_integer, shown, wanted_integer};
use super::source::join;

/// Whether a file is read or the keys are listed.
enum Mode {
    File,
    Listing(RefCell<BTreeSet<String>>),
}

/// What all tables of one file share.
pub(crate) struct Reader<'a> {
    notes: &'a Notes,
    mode: Mode,
}

impl<'a> Reader<'a> {
    /// Reads the file whose tree is `root`.
    pub(crate) fn file<T>(notes: &'a Notes, root: &DeTable<'_>, read: impl FnOnce(&Table<'_>) -> T) -> T {
        Self { notes, mode: Mode::File }.table(root, read)
    }

    /// Every key that `read` asks for, as in `service.ports.backends.weight`.
    pub(crate) fn keys<T>(read: impl FnOnce(&Table<'_>) -> T) -> BTreeSet<String> {
        let notes = Notes::default();
        let reader = Reader { notes: &notes, mode: Mode::Listing(RefCell::default()) };
        reader.table(&DeTable::new(), read);
        match reader.mode {
            Mode::File => BTreeSet::new(),
            Mode::Listing(keys) => keys.into_inner(),
        }
    }

    fn table<T>(&self, root: &DeTable<'_>, read: impl FnOnce(&Table<'_>) -> T) -> T {
        Table {
            reader: self,
            entries: root,
            offset: 0,
            path: String::new(),
            title: "the file".to_owned(),
            known: RefCell::default(),
        }
        .read(read)
    }
}

/// One table of the file.
pub(crate) struct Table<'a> {
    reader: &'a Reader<'a>,
    entries: &'a DeTable<'a>,
    offset: usize,
    path: String,
    /// As a person would call it: `[bridge]`, `[[ports]]`.
    title: String,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Table<'a> {
    /// Where the table begins.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Where findings go.
    pub(crate) fn notes(&self) -> &'a Notes {
        self.reader.notes
    }

    /// Whether the key is there, readable or not.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Notes that a key is not there that should be.
    pub(crate) fn missing(&self, key: &str, right: impl Into<String>) {
        let wrong = format!("{} has no `{key}`", self.title);
        self.notes().error_at_key(self.offset, join(&self.path, key), wrong, right.into());
    }

    /// The value of `key`, if it is there and can be used.
    pub(crate) fn optional<T: Readable>(&self, key: &'static str) -> Option<At<T>> {
        let value = self.value(key)?;
        self.convert(&value, || join(&self.path, key), key, T::WANTED, T::read)
    }

    /// The value of `key`, or `default` where it is not given.
    pub(crate) fn with_default<T: Readable>(&self, key: &'static str, default: T) -> Option<At<T>> {
        if self.has(key) {
            self.optional(key)
        } else {
            self.know(key);
            Some(At { value: default, offset: self.offset })
        }
    }

    /// The value of `key`, which must be given.
    pub(crate) fn required<T: Readable>(&self, key: &'static str, example: &str) -> Option<At<T>> {
        let value = self.optional(key);
        if !self.has(key) {
            self.missing(key, format!("add it, as in `{key} = {example}`"));
        }
        value
    }

    /// An integer of `range`, or `default`.
    pub(crate) fn integer<T: TryFrom<u64>>(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: T,
    ) -> Option<At<T>> {
        let value = self.optional_integer(key, range);
        if self.has(key) { value } else { Some(At { value: default, offset: self.offset }) }
    }

    /// An integer of `range`, which must be given.
    pub(crate) fn required_integer<T: TryFrom<u64>>(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
        example: &str,
    ) -> Option<At<T>> {
        let value = self.optional_integer(key, range);
        if !self.has(key) {
            self.missing(key, format!("add it, as in `{key} = {example}`"));
        }
        value
    }

    /// An integer of `range`, if it is there and can be used.
    pub(crate) fn optional_integer<T: TryFrom<u64>>(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<At<T>> {
        let value = self.value(key)?;
        let wanted = wanted_integer(&range);
        self.convert(&value, || join(&self.path, key), key, &wanted, |value| read_integer(value, &range))
    }

    /// The usable elements of an array; none when it is not given.
    pub(crate) fn list<T: Readable>(&self, key: &'static str) -> Vec<At<T>> {
        self.elements(key, "array", |value, path| self.convert(value, path, key, T::WANTED, T::read))
    }

    /// The usable elements of an array of integers of `range`.
    pub(crate) fn integers<T: TryFrom<u64>>(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Vec<At<T>> {
        let wanted = wanted_integer(&range);
        self.elements(key, "array", |value, path| {
            self.convert(value, path, key, &wanted, |value| read_integer(value, &range))
        })
    }

    /// What `read` makes of the table `[key]`, if that is there.
    pub(crate) fn section<T>(&self, key: &'static str, read: impl FnOnce(&Table<'_>) -> T) -> Option<T> {
        let listed = DeTable::new();
        let title = join(&without_places(&self.path), key);
        let (entries, offset) = match self.value(key) {
            Some(At { value: DeValue::Table(entries), offset }) => (entries, offset),
            Some(other) => {
                self.wrong_type(&other, join(&self.path, key), key, &format!("a table, `[{title}]`"));
                return None;
            }
            None if self.is_listing() => (&listed, self.offset),
            None => return None,
        };
        Some(self.child(entries, offset, join(&self.path, key), format!("`[{title}]`")).read(read))
    }

    /// What `read` makes of `[key]`, or of an empty one where it is not given.
    pub(crate) fn section_or_empty<T>(&self, key: &'static str, read: impl Fn(&Table<'_>) -> T) -> T {
        if let Some(section) = self.section(key, &read) {
            return section;
        }
        let none = DeTable::new();
        self.child(&none, self.offset, join(&self.path, key), format!("`[{key}]`")).read(read)
    }

    /// What `read` makes of each `[[key]]`, in the file's order.
    pub(crate) fn each<T>(&self, key: &'static str, read: impl Fn(&Table<'_>) -> T) -> Vec<T> {
        if self.is_listing() {
            return self.section(key, read).into_iter().collect();
        }
        let title = join(&without_places(&self.path), key);
        self.elements(key, "array of tables", |value, path| match value.value {
            DeValue::Table(entries) => {
                Some(self.child(entries, value.offset, path(), format!("this `[[{title}]]`")).read(&read))
            }
            _ => {
                self.wrong_type(value, path(), key, "a table");
                None
            }
        })
    }

    fn is_listing(&self) -> bool {
        matches!(self.reader.mode, Mode::Listing(_))
    }

    fn child<'b>(
        &'b self,
        entries: &'b DeTable<'b>,
        offset: usize,
        path: String,
        title: String,
    ) -> Table<'b> {
        Table { reader: self.reader, entries, offset, path, title, known: RefCell::default() }
    }

    fn know(&self, key: &'static str) {
        self.known.borrow_mut().push(key);
        if let Mode::Listing(keys) = &self.reader.mode {
            keys.borrow_mut().insert(join(&self.path, key));
        }
    }

    fn value(&self, key: &'static str) -> Option<At<&DeValue<'a>>> {
        self.know(key);
        let value = self.entries.get(key)?;
        Some(At { value: value.get_ref(), offset: value.span().start })
    }

    fn elements<T>(
        &self,
        key: &'static str,
        wanted: &str,
        read: impl Fn(&At<&DeValue<'_>>, &dyn Fn() -> String) -> Option<T>,
    ) -> Vec<T> {
        let Some(array) = self.value(key) else {
            return Vec::new();
        };
        let DeValue::Array(elements) = array.value else {
            let wanted = match wanted {
                "array" => format!("an array, as in `{key} = [ ... ]`"),
                _ => format!(
                    "an array of tables, `[[{}]]`: there can be several",
                    join(&without_places(&self.path), key)
                ),
            };
            self.wrong_type(&array, join(&self.path, key), key, &wanted);
            return Vec::new();
        };
        let path = |place: usize| format!("{}[{place}]", join(&self.path, key));
        elements
            .iter()
            .enumerate()
            .filter_map(|(place, element)| {
                read(&At { value: element.get_ref(), offset: element.span().start }, &|| path(place))
            })
            .collect()
    }

    fn convert<T>(
        &self,
        value: &At<&DeValue<'_>>,
        path: impl Fn() -> String,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Fault>,
    ) -> Option<At<T>> {
        match read(value.value) {
            Ok(read) => Some(At { value: read, offset: value.offset }),
            Err(Fault::Type) => {
                self.wrong_type(value, path(), key, wanted);
                None
            }
            Err(Fault::Content(wrong, right)) => {
                let wrong = format!("`{key}` is {}, {wrong}", shown(value.value));
                self.notes().error_at_key(value.offset, path(), wrong, right);
                None
            }
        }
    }

    fn wrong_type(&self, value: &At<&DeValue<'_>>, path: String, key: &str, wanted: &str) {
        let (found, article) = match value.value {
            DeValue::Array(elements)
                if matches!(elements.iter().next().map(|e| e.get_ref()), Some(DeValue::Table(_))) =>
            {
                ("array of tables", "an")
            }
            DeValue::Array(_) => ("array", "an"),
            DeValue::Integer(_) => ("integer", "an"),
            other => (other.type_str(), "a"),
        };
        let wrong = format!("`{key}` is {article} {found}");
        self.notes().error_at_key(value.offset, path, wrong, format!("write {wanted}"));
    }

    fn read<T>(self, read: impl FnOnce(&Table<'_>) -> T) -> T {
        let result = read(&self);
        self.note_unknown_keys();
        result
    }

    fn note_unknown_keys(&self) {
        let known = self.known.borrow();
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let right = closest(name, known.iter().copied()).map_or_else(
                || {
                    let list: Vec<_> = known.iter().map(|known| format!("`{known}`")).collect();
                    format!("remove it, or use one of {}", list.join(", "))
                },
                |known| format!("did you mean `{known}`?"),
            );
            let wrong = format!("unknown key `{}` in {}", name.escape_debug(), self.title);
            self.notes().error_at_key(key.span().start, join(&self.path, name), wrong, right);
        }
    }
}

/// A path without the places of elements: what stands between the brackets of a header.
fn without_places(path: &str) -> String {
    path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{changed, expect, expect_one};
    use super::*;

    #[test]
    fn unknown_keys_get_a_suggestion() {
        expect_one(
            "rate_pps = 10000",
            "rate_pp = 10000",
            (
                "error",
                "rate_pp",
                "exception.rate_pp",
                "unknown key `rate_pp` in `[exception]`; did you mean `rate_pps`?",
            ),
        );
        expect_one(
            "watch = true",
            "colour = true",
            ("error", "colour", "control.colour", "remove it, or use one of `cores`, `socket`, `watch`"),
        );
        expect_one(
            "[conntrack]",
            "[contrack]",
            (
                "error",
                "contrack]",
                "contrack",
                "unknown key `contrack` in the file; did you mean `conntrack`?",
            ),
        );
        expect_one(
            "weight = 1 }",
            "wieght = 1 }",
            (
                "error",
                "wieght",
                "service[1].ports[0].backends[0].wieght",
                "in this `[[service.ports.backends]]`; did you mean `weight`?",
            ),
        );
    }

    #[test]
    fn wrong_types_say_what_is_wanted() {
        expect_one(
            "mtu = 1500",
            "mtu = \"1500\"",
            ("error", "\"1500\"", "ports[0].mtu", "`mtu` is a string; write an integer from 576 to 1986"),
        );
        expect_one(
            "watch = true",
            "watch = 1",
            ("error", "1", "control.watch", "`watch` is an integer; write true or false"),
        );
        expect_one(
            "addresses = [\"192.168.0.21\"]",
            "addresses = \"192.168.0.21\"",
            (
                "error",
                "\"192",
                "node.addresses",
                "`addresses` is a string; write an array, as in `addresses = [ ... ]`",
            ),
        );
        expect_one(
            "cores = [0]",
            "cores = [0, 1.5]",
            ("error", "1.5", "control.cores[1]", "`cores` is a float; write an integer from 0 to 1023"),
        );
        expect_one(
            "[conntrack]",
            "[[conntrack]]",
            (
                "error",
                "[[conntrack]]",
                "conntrack",
                "`conntrack` is an array of tables; write a table, `[conntrack]`",
            ),
        );
        expect(
            "[ports]\nname = \"a\"\n",
            &[(
                "error",
                "[ports]",
                "ports",
                "`ports` is a table; write an array of tables, `[[ports]]`: there can",
            )],
        );
        expect_one(
            "backends = [{ address = \"172.30.76.2:80\" }]",
            "backends = [\"172.30.76.2:80\"]",
            ("error", "\"172", "service[4].ports[0].backends[0]", "`backends` is a string; write a table"),
        );
        expect_one(
            "backends = [{ address = \"172.30.76.2:80\" }]",
            "backends = 7",
            (
                "error",
                "7",
                "service[4].ports[0].backends",
                "`[[service.ports.backends]]`: there can be several",
            ),
        );
    }

    #[test]
    fn ranges_hold() {
        for number in ["0", "-1", "16777216", "99999999999999999999", "0x1000000"] {
            let to = format!("vni = {number}");
            expect_one(
                "vni = 1",
                &to,
                ("error", number, "overlay.vni", "out of range; give an integer from 1 to 16777215"),
            );
        }
        for number in ["0xff_ffff", "16_777_215", "0b1"] {
            expect(&changed(&[("vni = 1", &format!("vni = {number}"))]), &[]);
        }
    }

    #[test]
    fn missing_keys_come_with_an_example() {
        expect_one(
            "mac = \"02:42:67:05:b5:30\"\n",
            "",
            (
                "error",
                "[bridge]",
                "bridge.mac",
                "`[bridge]` has no `mac`; add it, as in `mac = \"02:42:67:05:b5:30\"`",
            ),
        );
        let text = "[[neighbours]]\ninterface = \"a\"\naddress = \"10.0.0.1\"\n";
        expect(
            text,
            &[
                ("error", "[[neighbours]]", "neighbours[0].mac", "this `[[neighbours]]` has no `mac`"),
                ("error", "\"a\"", "neighbours[0].interface", "there is no interface `a`; there is none yet"),
            ],
        );
    }

    #[test]
    fn lists_every_key_once_and_no_place() {
        let keys = Reader::keys(super::super::sections::read);
        for key in
            ["bridge", "ports.mac", "service.ports.backends.weight", "services.snat_address", "fdb.port"]
        {
            assert!(keys.contains(key), "{key} is not in {keys:?}");
        }
        assert!(!keys.iter().any(|key| key.contains('[')));
    }
}
