//! Examples of each command, for the man pages. The test of the documents sees that each one can be typed.

/// What it does, and what is typed.
type Example = (&'static str, &'static str);

/// The examples of a command; of the program itself under its own name.
pub(super) fn examples(command: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(name, _)| *name == command).map_or(&[], |(_, examples)| examples)
}

const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "forebay",
        &[
            ("A folder with a pipeline that works", "forebay init shop"),
            ("Run it from where it is to the end of its source", "forebay run shop/pipeline.toml"),
            ("Read the newest document of each region", "forebay latest --config shop/pipeline.toml"),
        ],
    ),
    (
        "run",
        &[
            ("From the checkpoint to the end of the source", "forebay run pipeline.toml"),
            ("Go on at its end, as a service does", "forebay run pipeline.toml --follow"),
            #[cfg(feature = "serve")]
            ("The same, with a page, probes and metrics", "forebay run pipeline.toml --follow --listen 127.0.0.1:9464"),
            ("Events of another program", "zcat log.ndjson.gz | forebay run pipeline.toml --source -"),
            ("Index anew, while readers use the present tables", "forebay run pipeline.toml --fresh"),
            ("See where the time goes", "forebay run pipeline.toml --timeline run.svg"),
        ],
    ),
    ("rollback", &[("Every row as of block 1200", "forebay rollback pipeline.toml --to 1200")]),
    (
        "publish",
        &[
            (
                "One document a line, to the Redis that REDIS_URL names",
                "./compute | forebay publish - --pipeline risk --expect north,south",
            ),
            ("Fill an empty Redis from the store", "forebay publish --all --config pipeline.toml"),
        ],
    ),
    (
        "seed",
        &[
            ("Look first, write nothing", "forebay seed --config seed.toml --dry-run -- ./compute"),
            ("In place of a cron job", "forebay seed --config seed.toml --every 15m -- ./compute"),
        ],
    ),
    ("check", &[("Try the handlers on the first events", "forebay check pipeline.toml")]),
    ("doctor", &[("What stands in the way, and nothing else", "forebay doctor pipeline.toml -q")]),
    ("init", &[("Make shop/pipeline.toml with its script and six events", "forebay init shop")]),
    (
        "latest",
        &[
            ("Of all regions", "forebay latest --config pipeline.toml"),
            ("Of one, from Redis", "forebay latest north --pipeline shop --snapshots redis://localhost"),
        ],
    ),
    (
        "history",
        &[("What a region said in the last two hours", "forebay history north --config pipeline.toml --since 2h")],
    ),
    ("show", &[("One snapshot, with what stands around it", "forebay show ID --config pipeline.toml --meta")]),
    ("status", &[("For a monitor", "forebay status pipeline.toml --json")]),
    ("quarantine", &[("With the whole events", "forebay quarantine pipeline.toml --json")]),
    ("completions", &[("For bash", "forebay completions bash > ~/.local/share/bash-completion/completions/forebay")]),
    ("man", &[("Where man looks for those of this user", "forebay man ~/.local/share/man/man1")]),
];
