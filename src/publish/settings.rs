//! What a pipeline says of its snapshots.
//!
//! `run` hands these settings on whole: a new key of `[snapshots]` that only a target needs is one of this room and of
//! `config`.

use std::time::Duration;

use super::{DedupRule, FieldPath, HealthFields, Keys, PublishPlan, TargetUrl};
use crate::model::limits::{PUBLISH_POOL, PUBLISH_POOL_MAX, PUBLISH_TIMEOUT, SNAPSHOTS_DEDUP, SNAPSHOTS_TTL};
use crate::model::setting::SettingError;
use crate::snapshot::{Every, Integers};

/// When snapshots are computed and how long they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotsConfig {
    /// When they are computed. Defaults to every 10 s.
    pub every: Every,
    /// How long they are kept. Defaults to 90 days.
    pub ttl: Duration,
    /// How long the same content counts as a duplicate. Defaults to 15 minutes.
    pub dedup: Duration,
    /// What tells duplicates. Defaults to the whole document.
    pub dedup_rule: DedupRule,
    /// How integers beyond 2^53 stand in documents. Defaults to texts.
    pub integers: Integers,
    /// Where they are also published. Defaults to none.
    pub url: Option<TargetUrl>,
    /// The names of the keys there.
    pub keys: Keys,
    /// The field of a document that is given by hand that holds its region. Defaults to `region`.
    pub region_field: FieldPath,
    /// The field of a document that holds its id there. Defaults to none: the store's id.
    pub id_field: Option<FieldPath>,
    /// The field of a document that holds its time there. Defaults to none: when it was computed.
    pub time_field: Option<FieldPath>,
    /// What the health key holds, where the keys have one. Defaults to none.
    pub health: Option<HealthFields>,
    /// Fields of documents that stand in the summary too, each under a name of its own. Defaults to none.
    pub summary_fields: Vec<(String, FieldPath)>,
    /// Connections to Redis, and threads that publish. Defaults to 8.
    pub pool: usize,
    /// How long connecting to Redis may take, and how long it may be silent. Defaults to 5 s.
    pub timeout: Duration,
}

impl SnapshotsConfig {
    /// When snapshots are computed.
    ///
    /// # Errors
    /// Every 0 blocks is never.
    pub fn with_every(self, every: Every) -> Result<Self, SettingError> {
        match every {
            Every::Blocks(0) => Err(SettingError::new("every: expected at least 1 block")),
            every => Ok(Self { every, ..self }),
        }
    }

    /// How long a snapshot is kept that is not its region's newest.
    ///
    /// # Errors
    /// The duration is zero.
    pub fn with_ttl(self, ttl: Duration) -> Result<Self, SettingError> {
        Ok(Self { ttl: SettingError::unless_instant("ttl", ttl)?, ..self })
    }

    /// How long the same content counts as a duplicate; zero for never.
    #[must_use]
    pub fn with_dedup(self, dedup: Duration) -> Self {
        Self { dedup, ..self }
    }

    /// Fields that do not count as a change, by name or dotted path.
    #[must_use]
    pub fn with_dedup_ignore(self, fields: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { dedup_rule: self.dedup_rule.with_ignore(fields), ..self }
    }

    /// How integers beyond 2^53 stand in documents.
    #[must_use]
    pub fn with_integers(self, integers: Integers) -> Self {
        Self { integers, ..self }
    }

    /// Where they are also published.
    #[must_use]
    pub fn with_url(self, url: TargetUrl) -> Self {
        Self { url: Some(url), ..self }
    }

    /// The names of the keys there.
    #[must_use]
    pub fn with_keys(self, keys: Keys) -> Self {
        Self { keys, ..self }
    }

    /// The field of a document that holds its id there.
    #[must_use]
    pub fn with_id_field(self, field: FieldPath) -> Self {
        Self { id_field: Some(field), ..self }
    }

    /// The field of a document that holds its time there.
    #[must_use]
    pub fn with_time_field(self, field: FieldPath) -> Self {
        Self { time_field: Some(field), ..self }
    }

    /// Connections to Redis, and threads that publish.
    ///
    /// # Errors
    /// There are none, or more than 256.
    pub fn with_pool(self, pool: usize) -> Result<Self, SettingError> {
        Ok(Self { pool: SettingError::unless_beyond("pool", pool, PUBLISH_POOL_MAX)?, ..self })
    }

    /// How long connecting to Redis may take, and how long it may be silent.
    ///
    /// # Errors
    /// The duration is zero.
    pub fn with_timeout(self, timeout: Duration) -> Result<Self, SettingError> {
        Ok(Self { timeout: SettingError::unless_instant("timeout", timeout)?, ..self })
    }

    /// How snapshots of that pipeline are published to `url`.
    pub fn publish_plan(&self, pipeline: &str, url: TargetUrl) -> PublishPlan {
        PublishPlan {
            pipeline: pipeline.to_owned(),
            url,
            keys: self.keys.clone(),
            id_field: self.id_field.clone(),
            time_field: self.time_field.clone(),
            health: self.health.clone(),
            summary_fields: self.summary_fields.clone(),
            ttl: self.ttl,
            // A duplicate is one for as long as its span lasts.
            dedup: if self.dedup.is_zero() {
                self.dedup
            } else {
                self.dedup.max(self.dedup_rule.bucket.unwrap_or_default())
            },
            pool: self.pool,
            timeout: self.timeout,
            signature: None,
            takes_over: false,
        }
    }
}

impl Default for SnapshotsConfig {
    fn default() -> Self {
        Self {
            every: Every::Time(Duration::from_secs(10)),
            ttl: SNAPSHOTS_TTL,
            dedup: SNAPSHOTS_DEDUP,
            dedup_rule: DedupRule::default(),
            integers: Integers::default(),
            url: None,
            keys: Keys::default(),
            region_field: FieldPath::region(),
            id_field: None,
            time_field: None,
            health: None,
            summary_fields: Vec::new(),
            pool: PUBLISH_POOL,
            timeout: PUBLISH_TIMEOUT,
        }
    }
}
