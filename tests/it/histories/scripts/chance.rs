//! Scripts and events by chance.

use forebay::query::Comparison;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::script::{Columns, Entity, Event, Expr, Given, Method, Query, Row, SHIFT_MAX, Script, Stmt};

/// Columns that have an order.
const ORDERED: [&str; 3] = ["v", "s", "n"];

fn two<T: Clone + std::fmt::Debug>(of: &BoxedStrategy<T>) -> impl Strategy<Value = (Box<T>, Box<T>)> + use<T> {
    (of.clone(), of.clone()).prop_map(|(a, b)| (Box::new(a), Box::new(b)))
}

fn entity() -> impl Strategy<Value = Entity> + Clone {
    prop_oneof![6 => (0..3u8).prop_map(Entity::Of), 1 => Just(Entity::Loop)]
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![20 => -4..6i64, 1 => select(vec![1 << 62, -(1 << 62), (1 << 53) + 1])]
}

/// Expressions that mostly have the type that they are asked for.
#[derive(Clone)]
struct Exprs {
    int: BoxedStrategy<Expr>,
    text: BoxedStrategy<Expr>,
    numeric: BoxedStrategy<Expr>,
    test: BoxedStrategy<Expr>,
    id: BoxedStrategy<Expr>,
    row: BoxedStrategy<Row>,
    query: BoxedStrategy<Query>,
}

fn field(row: Row, column: &'static str, other: Expr) -> Expr {
    Expr::Field(row, column, Box::new(other))
}

impl Exprs {
    /// Those that read nothing.
    fn simple() -> Self {
        let event = |column, other| Just(field(Row::Event, column, other));
        let names = select(vec!["k0", "k1", "k2", "k3", "7"]).prop_map(Expr::Text);
        let numbered = (1..6i64).prop_map(|by| {
            let number = Expr::Rem(Box::new(field(Row::Event, "v", Expr::Int(0))), by);
            Expr::Concat(Box::new(Expr::Text("k")), Box::new(number))
        });
        let id = prop_oneof![
            4 => event("id", Expr::Nil), 4 => names, 3 => numbered, 1 => Just(Expr::X),
            1 => (0..9i64).prop_map(Expr::Int),
        ];
        let text = prop_oneof![
            3 => event("s", Expr::Text("")), 2 => select(vec!["", "a", "b", "k1"]).prop_map(Expr::Text),
            1 => event("id", Expr::Nil), 1 => Just(Expr::Region),
        ];
        let int = prop_oneof![
            4 => event("v", Expr::Int(0)), 3 => number().prop_map(Expr::Int), 1 => event("v", Expr::Nil),
            1 => Just(Expr::X), 1 => Just(Expr::Y), 1 => Just(Expr::I), 1 => Just(Expr::Block),
        ];
        let given = Expr::Numeric(Box::new(field(Row::Event, "n", Expr::Int(0))));
        Self {
            numeric: prop_oneof![2 => Just(given), 1 => number().prop_map(|n| Expr::Numeric(Box::new(Expr::Int(n))))]
                .boxed(),
            test: prop_oneof![2 => event("b", Expr::Nil), 1 => any::<bool>().prop_map(Expr::Bool)].boxed(),
            row: prop_oneof![3 => Just(Row::Loop), 2 => Just(Row::Event), 1 => Just(Row::Const)].boxed(),
            query: Just(Query::Of { test: None, order: Some((true, "v")), limit: Some(2) }).boxed(),
            int: int.boxed(),
            text: text.boxed(),
            id: id.boxed(),
        }
    }

    /// Those that may be made of these.
    fn above(&self) -> Self {
        let (get, first) = ((entity(), self.id.clone()), (entity(), self.query.clone()));
        let row = prop_oneof![
            5 => get.clone().prop_map(|(entity, id)| Row::Get(entity, Box::new(id))),
            2 => get.prop_map(|(entity, id)| Row::Try(entity, Box::new(id))),
            2 => first.clone().prop_map(|(entity, query)| Row::First(entity, query)),
            1 => self.row.clone(),
        ]
        .boxed();
        // What an event has as a number may be a float.
        let stored = row.clone().prop_filter("a stored row", |row| !matches!(row, Row::Event));
        let fields = |column: &'static str, other: &BoxedStrategy<Expr>| {
            (stored.clone(), other.clone()).prop_map(move |(row, other)| field(row, column, other))
        };
        let found = (entity(), self.query.clone(), prop::option::of(entity()));
        let int = prop_oneof![
            4 => self.int.clone(),
            4 => fields("v", &self.int),
            2 => two(&self.int).prop_map(|(a, b)| Expr::Add(a, b)),
            1 => two(&self.int).prop_map(|(a, b)| Expr::Sub(a, b)),
            1 => (self.int.clone(), -3..4i64).prop_map(|(a, b)| Expr::Times(Box::new(a), b)),
            1 => (self.int.clone(), 1..6i64).prop_map(|(a, b)| Expr::Rem(Box::new(a), b)),
            1 => self.int.clone().prop_map(|a| Expr::Rated(Box::new(a))),
            2 => first.clone().prop_map(|(entity, query)| Expr::Count(entity, query)),
            1 => first.prop_map(|(entity, query)| Expr::Found(entity, query)),
            1 => row.clone().prop_map(|row| Expr::Inside(row, "a")),
            1 => prop::collection::vec(self.int.clone(), 0..4).prop_map(Expr::Sum),
            1 => (1..3u8, prop::collection::vec(self.int.clone(), 2..4)).prop_map(|(at, all)| Expr::Pick(at, all)),
        ];
        let text = prop_oneof![
            3 => self.text.clone(),
            3 => fields("s", &self.text),
            2 => two(&self.text).prop_map(|(a, b)| Expr::Concat(a, b)),
            2 => self.int.clone().prop_map(|a| Expr::Show(Box::new(a))),
            1 => fields("n", &self.numeric).prop_map(|a| Expr::Show(Box::new(a))),
            2 => found.prop_map(|(entity, query, by)| Expr::Ids(entity, query, by)),
            1 => stored.clone().prop_map(Expr::Keys),
            1 => (self.id.clone(), entity()).prop_map(|(text, entity)| Expr::Digits(Box::new(text), entity)),
            1 => (0..6u8, self.int.clone(), 0..=SHIFT_MAX)
                .prop_map(|(way, a, shift)| Expr::FloatText(way, Box::new(a), shift)),
        ];
        let numeric = prop_oneof![
            2 => self.numeric.clone(),
            3 => fields("n", &self.numeric),
            2 => two(&self.numeric).prop_map(|(a, b)| Expr::Add(a, b)),
            1 => (self.numeric.clone(), self.int.clone()).prop_map(|(a, b)| Expr::Sub(Box::new(a), Box::new(b))),
            1 => self.int.clone().prop_map(|a| Expr::Numeric(Box::new(a))),
        ];
        let test = prop_oneof![
            1 => self.test.clone(),
            2 => two(&self.int).prop_map(|(a, b)| Expr::Less(a, b)),
            1 => two(&self.text).prop_map(|(a, b)| Expr::Less(a, b)),
            1 => two(&self.int).prop_map(|(a, b)| Expr::Equal(a, b)),
            1 => fields("b", &self.test),
            1 => self.test.clone().prop_map(|a| Expr::Not(Box::new(a))),
            1 => two(&self.test).prop_map(|(a, b)| Expr::Or(a, b)),
        ];
        let id = prop_oneof![4 => self.id.clone(), 1 => self.text.clone()];
        Self {
            query: self.queries(),
            row,
            int: int.boxed(),
            text: text.boxed(),
            numeric: numeric.boxed(),
            test: test.boxed(),
            id: id.boxed(),
        }
    }

    fn queries(&self) -> BoxedStrategy<Query> {
        let comparison = select(Comparison::ALL.to_vec());
        let value = prop_oneof![
            3 => self.int.clone().prop_map(|value| ("v", value)),
            1 => self.text.clone().prop_map(|value| ("s", value)),
            1 => self.numeric.clone().prop_map(|value| ("n", value)),
        ];
        let test = (value, comparison).prop_map(|((column, value), by)| (column, by, Box::new(value)));
        let order = prop::option::of((any::<bool>(), select(ORDERED.to_vec())));
        let of = (prop::option::of(test), order, prop::option::of(1..5u8));
        let of = of.prop_map(|(test, order, limit)| Query::Of { test, order, limit });
        prop_oneof![8 => of, 1 => Just(Query::Const)].boxed()
    }

    fn column(&self) -> impl Strategy<Value = (&'static str, Expr)> + use<> {
        let parts = prop_oneof![self.int.clone(), self.text.clone()];
        let items = prop_oneof![4 => parts.clone(), 1 => Just(Expr::Nil), 1 => Just(Expr::Null)];
        let list = (any::<bool>(), prop::collection::vec(items, 0..4));
        let object = (parts.clone(), prop::collection::vec(parts, 0..3));
        let json = self.row.clone().prop_map(|row| field(row, "j", Expr::Nil));
        prop_oneof![
            6 => self.int.clone().prop_map(|value| ("v", value)),
            2 => self.numeric.clone().prop_map(|value| ("n", value)),
            1 => Just(("n", field(Row::Event, "n", Expr::Null))),
            2 => self.text.clone().prop_map(|value| ("s", value)),
            1 => self.test.clone().prop_map(|value| ("b", value)),
            1 => object.prop_map(|(a, list)| ("j", Expr::Object(Box::new(a), list))),
            1 => list.prop_map(|(is_marked, items)| ("j", Expr::List(is_marked, items))),
            1 => json.prop_map(|value| ("j", value)),
            1 => select(vec!["b", "n", "s", "v"]).prop_map(|column| (column, Expr::Null)),
            // Of the wrong type.
            1 => self.text.clone().prop_map(|value| ("v", value)),
        ]
    }

    /// Each column once.
    fn columns(&self) -> impl Strategy<Value = Columns> + use<> {
        prop::collection::vec(self.column(), 0..4).prop_map(|mut columns| {
            columns.sort_by_key(|(name, _)| *name);
            columns.dedup_by_key(|(name, _)| *name);
            columns
        })
    }

    /// Columns to add, and those that have an order.
    fn changes(&self, is_sum: bool) -> impl Strategy<Value = Columns> + use<> {
        self.columns().prop_map(move |mut columns| {
            columns.retain(|(name, _)| *name != "j" && (!is_sum || ["n", "v"].contains(name)));
            columns
        })
    }
}

/// Which statements there may be.
#[derive(Clone)]
struct Stmts {
    exprs: Exprs,
    depth: u8,
    has_helpers: bool,
}

impl Stmts {
    fn below(&self) -> Self {
        Self { depth: self.depth - 1, ..self.clone() }
    }

    fn block(&self, most: usize) -> BoxedStrategy<Vec<Stmt>> {
        prop::collection::vec(self.stmt(), 1..=most).boxed()
    }

    fn given(&self) -> BoxedStrategy<Given> {
        let (exprs, rows) = (&self.exprs, self.exprs.row.clone());
        let fresh =
            rows.clone().prop_filter("a row of its own", |row| !matches!(row, Row::Loop | Row::Const | Row::Event));
        let changed = (fresh, exprs.column()).prop_map(|(row, (column, value))| Given::Changed(row, column, value));
        let inherits = (exprs.columns(), rows.clone()).prop_map(|(columns, row)| Given::Inherits(columns, row));
        let plain = prop_oneof![
            8 => exprs.columns().prop_map(Given::Columns),
            2 => rows.prop_map(Given::Row),
            3 => changed,
            2 => inherits,
        ];
        if self.depth == 0 {
            return plain.boxed();
        }
        let computed = (exprs.column(), prop::collection::vec(self.below().stmt(), 0..2));
        let computed = computed.prop_map(|((column, value), stmts)| (column, stmts, value));
        let computed = (exprs.columns(), prop::collection::vec(computed, 1..3));
        let computed = computed.prop_map(|(columns, computed)| Given::Computed(columns, computed));
        prop_oneof![12 => plain, 2 => computed].boxed()
    }

    fn write(&self) -> impl Strategy<Value = Stmt> + use<> {
        let change =
            |method, is_sum| self.exprs.changes(is_sum).prop_map(move |columns| (method, Given::Columns(columns)));
        let odd = (select(vec![Method::Add, Method::Max, Method::Min]), self.given());
        let what = prop_oneof![
            6 => self.given().prop_map(|given| (Method::Set, given)),
            3 => change(Method::Add, true),
            1 => change(Method::Max, false),
            1 => change(Method::Min, false),
            1 => odd,
            // Whatever of it is a column.
            1 => select(vec![Method::Set, Method::Add, Method::Max]).prop_map(|method| (method, Given::Row(Row::Event))),
        ];
        (what, entity(), self.exprs.id.clone())
            .prop_map(|((method, given), entity, id)| Stmt::Write(method, entity, id, given))
    }

    fn stmt(&self) -> BoxedStrategy<Stmt> {
        let exprs = &self.exprs;
        let value = prop_oneof![3 => exprs.int.clone(), 1 => exprs.text.clone(), 1 => exprs.numeric.clone()];
        let simple = prop_oneof![
            8 => self.write(),
            2 => (entity(), exprs.id.clone()).prop_map(|(entity, id)| Stmt::Delete(entity, id)),
            2 => (any::<bool>(), value).prop_map(|(is_x, value)| Stmt::Assign(is_x, value)),
        ];
        if self.depth == 0 {
            return simple.boxed();
        }
        let (inner, test) = (self.below(), exprs.test.clone());
        let ends = prop_oneof![3 => (0..3u8).prop_map(Stmt::Fail), 1 => Just(Stmt::Return)];
        let ends = (test.clone(), ends).prop_map(|(test, end)| Stmt::If(test, vec![end], Vec::new()));
        let choice = (test, inner.block(2), prop::collection::vec(inner.stmt(), 0..2));
        let failing = (inner.block(3), prop::option::of(0..3u8), prop::collection::vec(inner.stmt(), 0..2));
        let failing = (any::<bool>(), failing).prop_map(|(reads, (mut stmts, fails, failed))| {
            stmts.extend(fails.map(Stmt::Fail));
            Stmt::Catch(reads, stmts, failed)
        });
        let rows = (entity(), exprs.query.clone(), inner.block(2)).prop_map(|(entity, query, stmts)| {
            // A loop makes rows, too: it goes over few.
            let query = match query {
                Query::Of { test, order, limit } => Query::Of { test, order, limit: limit.or(Some(3)) },
                other => other,
            };
            Stmt::Rows(entity, query, stmts)
        });
        let helper = (0..2u8, exprs.int.clone(), exprs.text.clone()).prop_map(|(at, x, y)| Stmt::Helper(at, x, y));
        let helper = if self.has_helpers { helper.boxed() } else { simple.clone().boxed() };
        prop_oneof![
            10 => simple,
            2 => ends,
            3 => choice.prop_map(|(test, then, or)| Stmt::If(test, then, or)),
            3 => failing,
            1 => (0..4u8, inner.block(2)).prop_map(|(times, stmts)| Stmt::Times(times, stmts)),
            2 => rows,
            1 => (prop::collection::vec(0..3u8, 1..4), inner.block(2)).prop_map(|(all, stmts)| Stmt::Entities(all, stmts)),
            2 => helper,
            1 => (exprs.int.clone(), inner.block(2)).prop_map(|(x, stmts)| Stmt::Closure(x, stmts)),
        ]
        .boxed()
    }
}

/// A statement that writes down what it finds in the first table, and how many.
pub fn finds() -> impl Strategy<Value = Stmt> {
    let query = Exprs::simple().queries();
    (query.clone(), query).prop_map(|(query, counted)| {
        let first = Entity::Of(0);
        let columns = vec![("s", Expr::Ids(first, query, None)), ("v", Expr::Count(first, counted))];
        Stmt::Write(Method::Set, Entity::Of(2), Expr::Text("found"), Given::Columns(columns))
    })
}

pub fn script() -> impl Strategy<Value = Script> {
    let first = Exprs::simple().above();
    let exprs = first.above();
    let helpers = Stmts { exprs: first.clone(), depth: 1, has_helpers: false };
    let body = Stmts { exprs: exprs.clone(), depth: 2, has_helpers: true };
    let shown = prop_oneof![
        3 => exprs.int.clone(),
        2 => exprs.text.clone(),
        1 => exprs.numeric.prop_map(|value| Expr::Show(Box::new(value))),
        1 => exprs.test.clone(),
    ];
    let caught = (body.stmt(), any::<bool>()).prop_map(|(stmt, is_caught)| match is_caught {
        true => Stmt::Catch(false, vec![stmt], Vec::new()),
        false => stmt,
    });
    let body = prop::collection::vec(caught, 1..8);
    let document = prop::collection::vec(shown, 1..5);
    (prop::collection::vec(helpers.block(3), 2), body, document, any::<bool>(), prop::bool::weighted(0.25))
        .prop_map(|(helpers, body, document, catches, is_shy)| Script { helpers, body, document, catches, is_shy })
}

pub fn event() -> impl Strategy<Value = Event> {
    let numbers = vec![
        "3",
        "-2",
        "0.5",
        "12.25",
        "3e16",
        // Both stand for the float midway between them.
        "64.00003051757812",
        "64.00003051757813",
        "18446744073709551617",
        "-99999999999999999999999999999999999999.5",
    ];
    let json = prop_oneof![
        Just(json!({})),
        (-3..4i64).prop_map(|a| json!({ "a": a, "l": [a, null] })),
        Just(json!({ "a": "x", "l": [] })),
        Just(json!({ "a": null, "l": [[], {}] })),
    ];
    (
        0..6u8,
        prop::option::weighted(0.9, number()),
        prop::option::weighted(0.7, select(vec!["", "a", "b", "c", "3"])),
        prop::option::of(select(numbers)),
        prop::option::weighted(0.8, any::<bool>()),
        prop::option::weighted(0.3, json),
    )
        .prop_map(|(id, v, s, n, b, j)| Event { id, v, s, n, b, j, ..Event::default() })
}
