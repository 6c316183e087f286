//! The folder of a history: what its files hold, what they are called, and how they lie on disk.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::path::Path;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Good,
    /// Its handler fails: it is put aside.
    Fails,
    /// An event that cannot be read, and its block can.
    NoRegion,
    /// A line that is no event at all.
    Headless,
}

/// One line. No two are the same: each has a number of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    pub n: u64,
    pub block: i64,
    pub place: i64,
    /// The block before its block, where hashes name it.
    pub parent: i64,
    pub region: u8,
    pub kind: Kind,
}

/// Whether and how blocks have hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashes {
    None,
    Hash,
    Parent,
}

/// What lines say of where they belong.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub has_places: bool,
    pub hashes: Hashes,
}

impl Line {
    pub fn text(&self, form: Form) -> String {
        let Self { n, block, place, parent, region, kind } = self;
        if *kind == Kind::Headless {
            return format!("{{bad {n}");
        }
        let mut text = format!("{{\"n\":{n},\"block\":{block}");
        if form.has_places {
            text += &format!(",\"seq\":{place}");
        }
        if form.hashes != Hashes::None {
            text += &format!(",\"hash\":\"h{block}\"");
        }
        if form.hashes == Hashes::Parent {
            text += &format!(",\"parent\":\"h{parent}\"");
        }
        if *kind != Kind::NoRegion {
            text += &format!(",\"region\":\"r{region}\"");
        }
        if *kind == Kind::Fails {
            text += ",\"fails\":true";
        }
        text + "}"
    }

    /// Where it belongs.
    pub fn at(&self, form: Form) -> (i64, i64) {
        (self.block, if form.has_places { self.place } else { 0 })
    }

    pub fn has_block(&self) -> bool {
        self.kind != Kind::Headless
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// A file. Its number stays when it is renamed.
#[derive(Debug, Clone)]
pub struct Held {
    pub id: u64,
    pub base: u32,
    /// How often it was rotated.
    pub rotated: u32,
    pub packing: Packing,
    pub lines: Vec<Line>,
    pub inode: u64,
    pub modified: i64,
}

impl Held {
    pub fn key(&self) -> (u32, Reverse<u32>) {
        (self.base, Reverse(self.rotated))
    }

    pub fn name(&self) -> String {
        let rotated = if self.rotated == 0 { String::new() } else { format!(".{}", self.rotated) };
        let packed = match self.packing {
            Packing::Plain => "",
            Packing::Gzip => ".gz",
            Packing::Zstd => ".zst",
        };
        format!("f{:05}.ndjson{rotated}{packed}", self.base)
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.lines.iter().map(|line| line.n).collect()
    }

    fn bytes(&self, form: Form) -> Vec<u8> {
        let text: String = self.lines.iter().map(|line| line.text(form) + "\n").collect();
        match self.packing {
            Packing::Plain => text.into_bytes(),
            Packing::Zstd => zstd::encode_all(text.as_bytes(), 1).expect("zstd"),
            Packing::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(text.as_bytes()).expect("gzip");
                encoder.finish().expect("gzip")
            }
        }
    }
}

/// The files, in the order in which they are read.
#[derive(Debug, Clone, Default)]
pub struct Folder {
    pub files: Vec<Held>,
}

impl Folder {
    pub fn sort(&mut self) {
        self.files.sort_by_key(Held::key);
    }

    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.files.iter().flat_map(|file| &file.lines)
    }

    pub fn has(&self, id: u64) -> bool {
        self.files.iter().any(|file| file.id == id)
    }

    /// Two files that hold the same lines.
    pub fn has_copies(&self) -> bool {
        let mut seen = BTreeSet::new();
        let mut files = self.files.iter().filter(|file| !file.lines.is_empty());
        !files.all(|file| seen.insert(file.numbers()))
    }

    /// One line in two files.
    pub fn has_repeats(&self) -> bool {
        let mut seen = BTreeSet::new();
        !self.lines().all(|line| seen.insert(line.n))
    }

    /// The folder in one line, for people.
    pub fn shown(&self, form: Form) -> String {
        let line = |line: &Line| match line.kind {
            Kind::Headless => format!("bad#{}", line.n),
            _ if form.has_places => format!("{}.{}#{}", line.block, line.place, line.n),
            _ => format!("{}#{}", line.block, line.n),
        };
        let file = |file: &Held| {
            let lines: Vec<String> = file.lines.iter().map(line).collect();
            format!("{}[{}]", file.name(), lines.join(" "))
        };
        self.files.iter().map(file).collect::<Vec<_>>().join(" ")
    }

    /// The names of files that are not as they were in the other folder, or are not there.
    pub fn changed_since(&self, other: &Self) -> BTreeSet<String> {
        let as_they_are = |folder: &Self| -> HashMap<String, (Vec<u64>, i64, u64)> {
            folder.files.iter().map(|file| (file.name(), (file.numbers(), file.modified, file.inode))).collect()
        };
        let (now, before) = (as_they_are(self), as_they_are(other));
        let is_changed = |name: &&String| now.get(*name) != before.get(*name);
        now.keys().chain(before.keys()).filter(is_changed).cloned().collect()
    }
}

/// What lies on disk.
#[derive(Debug, Default)]
pub struct Disk {
    written: HashMap<String, Vec<u64>>,
}

impl Disk {
    /// Makes the folder on disk what the history's is.
    pub fn write(&mut self, folder: &Folder, form: Form, path: &Path) {
        let names: BTreeSet<String> = folder.files.iter().map(Held::name).collect();
        self.written.retain(|name, _| {
            let is_there = names.contains(name);
            if !is_there {
                std::fs::remove_file(path.join(name)).expect("removed");
            }
            is_there
        });
        for file in &folder.files {
            let (name, numbers) = (file.name(), file.numbers());
            if self.written.get(&name) != Some(&numbers) {
                std::fs::write(path.join(&name), file.bytes(form)).expect("written");
                self.written.insert(name, numbers);
            }
        }
    }
}
