//! The guides do what they say: what stands in them behind a mark is written and run, in the order of the page, in one
//! folder a page.
//!
//! `<!-- file: NAME -->` before a block makes it a file. `<!-- run -->` runs it: each line behind `$ `, or the whole block if
//! it has none. `<!-- run: exits 3 -->`: its last command ends with that code. `<!-- run: shows -->`: its other lines are
//! exactly what is printed, and `<!-- run: shows examples/x -->` does so beside the files of that
//! folder. `<!-- run: postgres -->`: over a database of its own, in DATABASE_URL and OTHER_URL.

use std::process::{Command, Stdio};

use crate::support::postgres_server::Server;
use crate::support::project::{Outcome, Project, query};
use crate::support::redis_server::Redis;
use crate::support::wait_until;

/// What is marked in a page: the mark, the language and the lines of the block behind it.
struct Block {
    mark: String,
    lines: Vec<String>,
}

fn page(name: &str) -> String {
    let file = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// All pages, by their paths from docs/.
fn pages() -> Vec<String> {
    let mut found: Vec<String> = vec!["../README.md".into(), "../CHANGELOG.md".into()];
    for folder in ["", "guides/"] {
        let files = std::fs::read_dir(format!("{}/docs/{folder}", env!("CARGO_MANIFEST_DIR"))).expect("the documents");
        let names = files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned());
        found.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("{folder}{name}")));
    }
    found
}

fn blocks(page: &str) -> Vec<Block> {
    let mut lines = page.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(mark) = line.strip_prefix("<!-- ").and_then(|mark| mark.strip_suffix(" -->")) else { continue };
        if !["run", "file"].iter().any(|kind| mark == *kind || mark.starts_with(&format!("{kind}: "))) {
            continue;
        }
        let fence = lines.next().unwrap_or_default();
        assert!(fence.starts_with("```"), "{mark}: expected a block behind it, got {fence:?}");
        let inside = lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
        found.push(Block { mark: mark.to_owned(), lines: inside });
    }
    found
}

impl Block {
    fn script(&self) -> String {
        let typed: Vec<&str> = self.lines.iter().filter_map(|line| line.strip_prefix("$ ")).collect();
        if typed.is_empty() { self.lines.join("\n") } else { typed.join("\n") }
    }

    /// What it is expected to print.
    fn shown(&self) -> String {
        self.lines.iter().filter(|line| !line.starts_with("$ ")).map(|line| format!("{line}\n")).collect()
    }
}

/// A folder in which a page is followed.
struct Reader {
    project: Project,
    redis: Redis,
}

impl Reader {
    fn new() -> Self {
        let (project, redis) = (Project::new(), Redis::start(&[]));
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_forebay"), project.path("forebay")).expect("a link");
        Self { project, redis }
    }

    fn run(&self, script: &str, variables: &[(&str, String)]) -> Outcome {
        // The environment is the project's, and the binary the first of its name.
        let of_project = self.project.command(&[]);
        let mut command = Command::new("sh");
        command.args(["-eu", "-c", script]).current_dir(self.project.path(""));
        for (name, value) in of_project.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.project.path("").display()));
        command.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env("REDIS_URL", self.redis.url());
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.project.finish(command.spawn().expect("a shell"), &[script])
    }

    /// Does all that is marked in a page; how many blocks that were.
    fn follow(&self, page: &str) -> usize {
        let blocks = blocks(page);
        for block in &blocks {
            let (kind, what) = block.mark.split_once(": ").unwrap_or((&block.mark, ""));
            if kind == "file" {
                self.project.write(what, block.lines.join("\n") + "\n");
                continue;
            }
            if let Some(folder) = what.strip_prefix("shows ") {
                self.copy(folder);
            }
            let databases = if what == "postgres" { self.databases() } else { Vec::new() };
            let code = what.strip_prefix("exits ").map_or(0, |code| code.parse().expect("an exit code"));
            let outcome = self.run(&block.script(), &databases).ends_with(code);
            if what.starts_with("shows") {
                assert_eq!(outcome.stdout(), block.shown(), "{outcome}");
            }
        }
        blocks.len()
    }

    fn write_files(&self, page: &str) {
        for block in blocks(page) {
            if let Some(name) = block.mark.strip_prefix("file: ") {
                self.project.write(name, block.lines.join("\n") + "\n");
            }
        }
    }

    fn copy(&self, folder: &str) {
        let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in std::fs::read_dir(from).expect(folder) {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), self.project.path(&entry.file_name().to_string_lossy())).expect("a copy");
        }
    }

    fn databases(&self) -> Vec<(&'static str, String)> {
        let server = Server::shared();
        ["DATABASE_URL", "OTHER_URL"].map(|name| (name, server.url(&server.make_database()))).into()
    }
}

#[test]
fn scripts() {
    let reader = Reader::new();
    assert!(reader.follow(&page("guides/scripts.md")) >= 10);
    // What its targets leave: a document a region, in the file and in Redis.
    let latest = std::fs::read_to_string(reader.project.path("latest.ndjson")).expect("the documents");
    assert_eq!(latest.lines().count(), 2, "{latest}");
    let published = reader.project.forebay(&["latest", "--pipeline", "shop", "--snapshots", &reader.redis.url()]).ok();
    assert_eq!(published.stdout(), latest);
    // Without a Redis the tables are there all the same, and make goes on; with a wrong file it does not.
    reader.run("REDIS_URL=redis://127.0.0.1:1 make -s publish", &[]).ok();
    reader.run("make -s publish PIPELINE=none.toml", &[]).ends_with(2);
}

#[test]
fn operating() {
    assert!(Reader::new().follow(&page("guides/operating.md")) >= 4);
}

#[test]
fn from_a_cron_seeder() {
    assert_eq!(Reader::new().follow(&page("guide.md")), 1);
}

#[test]
fn from_an_indexer() {
    assert!(Reader::new().follow(&page("guides/indexer.md")) >= 4);
}

/// The second of two runs of one pipeline ends at once, and the word of the script is that it may be tried again.
#[test]
fn the_second_of_two_runs_is_told_to_come_again() {
    let reader = Reader::new();
    reader.write_files(&page("guides/scripts.md"));
    reader.project.forebay(&["init", "shop"]).ok();
    let args = ["run", "shop/pipeline.toml", "--source", "-"];
    let mut first = reader.project.command(&args).stdin(Stdio::piped()).spawn().expect("a run");
    let held = first.stdin.take();
    let store = reader.project.path("shop/shop.db");
    let tables = "SELECT count(*) FROM sqlite_master WHERE name = 'forebay_pipelines'";
    wait_until(|| store.exists() && query(&store, tables) == [["1"]]);
    let second = || reader.run("sh index.sh shop/pipeline.toml", &[]);
    wait_until(|| second().code() == Some(1));
    let said = second().ends_with(1);
    assert!(said.stdout().starts_with("again: ") && said.stderr().contains("is being written by"), "{said}");
    drop(held);
    reader.project.finish(first, &args).ok();
    assert_eq!(second().ok().stdout(), "done\n");
}

#[test]
fn the_script_says_what_each_code_means() {
    let reader = Reader::new();
    let scripts = page("guides/scripts.md");
    reader.write_files(&scripts);
    for (code, word) in [(0, "done"), (1, "again"), (2, "mend"), (3, "later"), (130, "stopped"), (137, "again")] {
        let fake = format!("mkdir -p fake && printf 'exit {code}' > fake/forebay && chmod +x fake/forebay");
        let outcome = reader.run(&format!("{fake}\nPATH=$PWD/fake:$PATH sh index.sh x"), &[]).ends_with(code);
        assert!(outcome.stdout().starts_with(word), "{outcome}");
    }
    // Each code of the program has its row in the table.
    let reference = page("reference.md");
    let codes =
        reference.split("## Exit codes").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("exit codes");
    for row in codes.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| code")) {
        let code = row[2..].split(' ').next().expect("a code");
        assert!(scripts.contains(&format!("\n| {code} | ")), "docs/guides/scripts.md has no row of exit code {code}");
    }
}

/// A link from one page to another leads to a page, and to a heading of it.
#[test]
fn links_lead_somewhere() {
    let anchors = |text: &str| -> Vec<String> {
        let is_kept = |character: &char| character.is_alphanumeric() || " -_".contains(*character);
        let anchor = |head: &str| head.to_lowercase().chars().filter(is_kept).collect::<String>().replace(' ', "-");
        text.lines()
            .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')))
            .map(anchor)
            .collect()
    };
    for name in pages() {
        let text = page(&name);
        let folder = std::path::Path::new(&name).parent().expect("a folder");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { name.to_owned() } else { folder.join(file).display().to_string() };
            let path = format!("{}/docs/{target}", env!("CARGO_MANIFEST_DIR"));
            assert!(std::path::Path::new(&path).exists(), "{name}: {link} leads nowhere");
            assert!(
                anchor.is_empty() || anchors(&page(&target)).contains(&anchor.to_owned()),
                "{name}: {link} leads to no heading"
            );
        }
    }
}
