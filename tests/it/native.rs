//! Handlers in Rust on real transfers, over a real store: the same balances as the independent answer, however the
//! work is cut.

use std::borrow::Cow;

use forebay::config::{BatchConfig, SnapshotsConfig};
use forebay::snapshot::Every;
use forebay::source::Fields;
use forebay::{Context, EntityRow, EntityTable, Handler, HandlerError, Numeric, Pipeline, Report};

use crate::support::project::Project;
use crate::support::real_events::{check_balances, data, expected};

forebay::entity! {
    /// An account of a token.
    struct Account in "account" {
        transfers: i64,
        balance: Numeric,
        last_id: Option<String>,
    }
    index transfers
}

#[derive(serde::Deserialize)]
struct Transfer<'e> {
    #[serde(borrow)]
    id: Cow<'e, str>,
    #[serde(borrow)]
    from: Cow<'e, str>,
    #[serde(borrow)]
    to: Cow<'e, str>,
    value: Numeric,
}

struct Balances;

impl Balances {
    fn add(ctx: &mut Context<'_>, id: &str, value: &Numeric, event: &str) -> Result<(), HandlerError> {
        let none = Account { transfers: 0, balance: Numeric::ZERO, last_id: None };
        let mut account = ctx.get::<Account>(id)?.unwrap_or(none);
        account.transfers += 1;
        account.balance = &account.balance + value;
        account.last_id = Some(event.to_owned());
        ctx.set(id, account)
    }
}

impl Handler for Balances {
    type Event<'e> = Transfer<'e>;

    fn entities(&self) -> Vec<EntityTable> {
        vec![Account::table()]
    }

    fn on_event(&self, event: Transfer<'_>, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        Self::add(ctx, &event.from, &-&event.value, &event.id)?;
        Self::add(ctx, &event.to, &event.value, &event.id)
    }

    fn has_snapshots(&self) -> bool {
        true
    }

    fn on_snapshot(&self, ctx: &mut Context<'_>) -> Result<Option<serde_json::Value>, HandlerError> {
        Ok(Some(serde_json::json!({ "accounts": ctx.count::<Account>()?, "region": ctx.region() })))
    }
}

fn run(project: &Project, batch: BatchConfig, until: i64) -> Report {
    let store = project.store("p.db");
    let snapshots = SnapshotsConfig::default().with_every(Every::End).expect("every");
    let pipeline = Pipeline::new("erc20", Balances).expect("pipeline").store_url(&store).expect("store");
    let fields = Fields::default().with_seq("seq").expect("a field");
    let pipeline =
        pipeline.source_path(&data("evm-ethereum.ndjson.gz")).fields(fields).batch(batch).snapshots(snapshots);
    pipeline.until(until).run().expect("it succeeds")
}

crate::both_stores! {
    fn balances_are_exact_in_one_run_and_in_many() {
        let (one, many) = (Project::new(), Project::new());
        one.write("pipeline.toml", "name = \"erc20\"");
        many.write("pipeline.toml", "name = \"erc20\"");
        let answer = expected("expected-evm-ethereum.json");
        let report = run(&one, BatchConfig::default(), i64::MAX);
        assert_eq!((report.events, report.snapshots.stored), (1412, 191));
        let small = BatchConfig::default().with_events(5).expect("events");
        for until in [4_369_999, 17_173_049, 18_600_300, 18_603_000, 18_605_743, i64::MAX] {
            run(&many, small, until);
        }
        let state = "SELECT region, id, balance, transfers, last_id FROM account ORDER BY region, id";
        let rows = one.query("p.db", state);
        check_balances(&rows, &answer);
        assert_eq!(many.query("p.db", state), rows);
        let docs = "SELECT region, doc FROM forebay_snapshots ORDER BY region, seq DESC";
        let mut newest = many.query("p.db", docs);
        newest.dedup_by(|later, first| later[0] == first[0]);
        assert_eq!(newest, one.query("p.db", docs));
    }
}

/// A handler that panics, fails or does not know its event ends the run with its own words.
#[test]
fn a_failing_handler_names_its_event() {
    struct Fails(&'static str);
    #[derive(serde::Deserialize)]
    struct Event {
        block: i64,
    }
    impl Handler for Fails {
        type Event<'e> = Event;
        fn entities(&self) -> Vec<EntityTable> {
            vec![Account::table()]
        }
        fn on_event(&self, event: Event, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
            let account = Account { transfers: 1, balance: Numeric::ZERO, last_id: Some("a\0b".into()) };
            match self.0 {
                "panics" if event.block == 3 => panic!("out of cheese"),
                "fails" if event.block == 3 => Err(HandlerError::new("no such account")),
                "writes NUL" if event.block == 3 => ctx.set("a", account),
                _ => Ok(()),
            }
        }
    }
    let project = Project::with(
        "",
        "",
        &(1..=3).map(|block| format!("{{\"block\":{block},\"region\":\"r\"}}\n")).collect::<String>(),
    );
    let cases = [
        ("panics", "the handler panicked: out of cheese"),
        ("fails", "no such account"),
        ("writes NUL", "account.last_id: a text with a NUL"),
    ];
    for (kind, says) in cases {
        let store = format!("sqlite:{}", project.path(&format!("{}.db", kind.len())).display());
        let pipeline = Pipeline::new("fails", Fails(kind)).expect("pipeline").store_url(&store).expect("store");
        let error = pipeline.source_path(&project.path("events.ndjson").to_string_lossy()).run().expect_err(kind);
        let error = error.to_string();
        assert!(
            error.contains(says) && error.contains("block 3") && error.contains("events.ndjson:3"),
            "{kind}: {error}"
        );
    }
}
