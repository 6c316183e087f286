//! What is particular to Postgres. Here is what its tests share.

/// Who may connect and how: TLS, passwords, rights, poolers.
mod connecting;
/// Indexing anew beside tables that people have made something of.
mod fresh;
/// Passwords in clear, variables of libpq, servers that stop in the middle of an answer.
mod guarded;
/// A server that goes away: what waits, what goes on by itself, what a stop does not wait for.
mod outages;
/// A database that may only be read, and settings that change nothing.
mod readers;
/// What is not asked for, what is asked for together, and connections that break under reads.
mod reads;
/// One schema a pipeline: who may use no other one, a dump and what is made of it, its end.
mod schema;
/// People who read the tables with SQL: comments, and roles that may read.
mod sql_readers;
/// What only looks like a Postgres, what stands before one, and a stop meanwhile.
mod strangers;
/// Types and keys of the tables, what people may change about them, and what is refused.
mod tables;

use crate::support::project::{Outcome, Project, Stores, with_store};

const PIPELINE: &str = "name = \"things\"\n[source]\npath = \"events.ndjson\"\n[entities.thing]\ncolumns = { n = \"bigint\", note = \"text\" }\n[handlers]\nscript = \"handlers.lua\"\n";

const SCRIPT: &str = "function on_event(e, ctx) ctx.thing:set(tostring(ctx.block), { n = ctx.block }) end
function on_snapshot(ctx) return { rows = ctx.thing:count() } end";

fn events(blocks: std::ops::RangeInclusive<i64>) -> String {
    blocks.map(|block| format!("{{\"block\":{block},\"region\":\"r\"}}\n")).collect()
}

/// A project over a database of the shared server.
fn on_postgres(pipeline: &str, script: &str, events: &str) -> Project {
    let mut project = None;
    with_store(Stores::Postgres, || project = Some(Project::with(pipeline, script, events)));
    project.expect("a project")
}

fn run_at(project: &Project, url: &str) -> Outcome {
    project.forebay(&["run", "pipeline.toml", "--json", "--store", url])
}

fn count(project: &Project) -> String {
    project.query("", "SELECT count(*) FROM thing").remove(0).remove(0)
}
