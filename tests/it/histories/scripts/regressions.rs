//! Scripts that once went wrong, shrunk; each test says what went wrong.

use super::script::Expr::{Int, Text};
use super::script::Stmt::{self, Write};
use super::script::{Entity, Event, Expr, Given, Method, Row, Script};
use super::{Pace, Plan, ROOMY, Step, live_on_sqlite};

/// Each block has one event of the same row; it is lived in one run, and in a run for each block.
fn check(body: Vec<Stmt>) {
    let script = Script { helpers: Vec::new(), body, document: vec![Int(0)], catches: true, is_shy: false };
    let event = Event { id: 0, v: Some(1), ..Event::default() };
    let blocks = vec![(1, vec![(0, event)]); 4];
    let pace = Pace { batch_events: 1, ..ROOMY };
    let plan =
        Plan { script, blocks, steps: vec![Step::Run(1, pace); 4], depth: 1, puts_aside: false, every_batch: false };
    live_on_sqlite(&plan).unwrap_or_else(|error| panic!("{error}\n{}", plan.script));
}

#[test]
fn an_event_is_added_to_no_row_whether_the_row_is_here_or_not() {
    for method in [Method::Add, Method::Max, Method::Min] {
        let row = Row::Get(Entity::Of(0), Box::new(Text("k0")));
        let read = Expr::Sum([row, Row::Event].map(|row| Expr::Field(row, "v", Box::new(Int(0)))).into());
        let write = Write(method, Entity::Of(0), Text("k0"), Given::Row(Row::Event));
        check(vec![Stmt::Assign(true, read), Stmt::Catch(false, vec![write], Vec::new())]);
    }
}
