//! Which optional parts a build has, by the names of their cargo features.

/// Something was asked for that this build does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this build has no {what}: cargo feature {feature:?}")]
pub struct NotBuilt {
    what: &'static str,
    feature: &'static str,
}

impl NotBuilt {
    /// Handlers in Lua.
    pub const LUA: Self = Self { what: "Lua", feature: "lua" };
    /// The store in a SQLite file.
    pub const SQLITE: Self = Self { what: "SQLite", feature: "sqlite" };
    /// The store in a Postgres database.
    pub const POSTGRES: Self = Self { what: "Postgres", feature: "postgres" };
    /// Publishing to Redis.
    pub const REDIS: Self = Self { what: "Redis", feature: "redis" };

    /// The cargo feature that would add it.
    pub fn feature(self) -> &'static str {
        self.feature
    }
}
