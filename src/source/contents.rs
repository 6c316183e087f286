//! The contents of files, by which a file is known again whatever its name is.
//!
//! A hash goes over the lines of each file, one after another. A file that was stored is there if a file that is read
//! begins with its lines: it may have been renamed or packed since, and may have grown.

use std::collections::HashSet;

use super::digest::chain;
use crate::model::source_progress::{SourceDigest, SourceFile};

/// A file that was stored whole.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    lines: u64,
    content: SourceDigest,
    name: String,
}

/// Which stored files are there, as far as files were read.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    /// In the order of their length.
    stored: Vec<Stored>,
    /// The names of those that are there.
    held: HashSet<String>,
    /// The contents of files that are there as they were stored: another row may have the same.
    held_contents: HashSet<SourceDigest>,
    /// The stored files that are longer than what was read so far of the file that is being read begin here.
    longer: usize,
    lines: u64,
    content: SourceDigest,
    /// The stored file whose lines are those that were read so far.
    at_known: Option<usize>,
}

impl Contents {
    /// Looks for the files that were stored whole.
    pub(super) fn new<'f>(stored: impl IntoIterator<Item = &'f SourceFile>) -> Self {
        let of_file = |file: &SourceFile| Stored {
            lines: file.events + file.late,
            content: file.content,
            name: file.stamp.name.clone(),
        };
        let whole = stored.into_iter().filter(|file| file.is_whole && file.events + file.late > 0);
        let mut stored: Vec<Stored> = whole.map(of_file).collect();
        stored.sort_by_key(|file| file.lines);
        Self { stored, ..Self::default() }
    }

    /// The same search, begun anew.
    pub(super) fn anew(&self) -> Self {
        Self { stored: self.stored.clone(), ..Self::default() }
    }

    /// Begins another file.
    pub(super) fn begin(&mut self) {
        (self.longer, self.lines, self.content, self.at_known) = (0, 0, SourceDigest::default(), None);
    }

    /// Begins a file behind the lines that were stored of it.
    pub(super) fn begin_behind(&mut self, stored: &SourceFile) {
        let lines = stored.events + stored.late;
        let longer = self.stored.partition_point(|other| other.lines <= lines);
        (self.longer, self.lines, self.content, self.at_known) = (longer, lines, stored.content, None);
    }

    /// Adds a line, given by its hash, of the file that is being read.
    pub(super) fn add(&mut self, line: u128) {
        self.content = chain(self.content, line);
        self.lines += 1;
        self.at_known = None;
        while let Some(stored) = self.stored.get(self.longer).filter(|stored| stored.lines <= self.lines) {
            if stored.lines == self.lines && stored.content == self.content {
                self.held.insert(stored.name.clone());
                self.at_known = Some(self.longer);
            }
            self.longer += 1;
        }
    }

    /// A file that is left out is there as it was stored.
    pub(super) fn hold(&mut self, file: &SourceFile) {
        self.held.insert(file.stamp.name.clone());
        // What has no lines is there, and says nothing of others.
        if file.events + file.late > 0 {
            self.held_contents.insert(file.content);
        }
    }

    /// The hash over the lines of the file that is being read.
    pub(super) fn content(&self) -> SourceDigest {
        self.content
    }

    /// The name of a stored file whose lines are those that were read so far, and no others.
    pub(super) fn at_known(&self) -> Option<&str> {
        Some(&self.stored.get(self.at_known?)?.name)
    }

    /// Whether a stored file is there.
    pub(super) fn is_held(&self, file: &SourceFile) -> bool {
        self.held.contains(&file.stamp.name) || self.held_contents.contains(&file.content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source_progress::FileStamp;

    fn file(name: &str, lines: &[u128]) -> SourceFile {
        let content = lines.iter().fold(SourceDigest::default(), |content, line| chain(content, *line));
        let stamp = FileStamp::new(name, 1, 1, 1);
        SourceFile { stamp, is_whole: true, events: lines.len() as u64, content, ..SourceFile::default() }
    }

    #[test]
    fn a_stored_file_is_there_if_another_begins_with_its_lines() {
        let stored = [file("a", &[1, 2]), file("b", &[1, 2, 3]), file("c", &[2, 3]), file("d", &[]), file("e", &[9])];
        let mut contents = Contents::new(&stored);
        contents.hold(&stored[4]);
        for (lines, known) in
            [(&[5, 1, 2][..], None), (&[1, 2], Some("a")), (&[1, 2, 3], Some("b")), (&[1, 2, 3, 4], None)]
        {
            contents.begin();
            lines.iter().for_each(|line| contents.add(*line));
            assert_eq!(contents.at_known(), known, "{lines:?}");
            assert_eq!(contents.content(), file("", lines).content);
        }
        assert_eq!(stored.each_ref().map(|file| contents.is_held(file)), [true, true, false, false, true]);
        // A row that was stored when the file had another name.
        assert!(contents.is_held(&file("e.1", &[9])));
        assert!(!contents.anew().is_held(&stored[0]));
    }
}
