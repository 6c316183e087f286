//! Where and how snapshots are published.

use std::sync::Arc;
use std::time::Duration;

use super::{DocumentFields, FieldPath, HealthFields, Keys, Publication, PublishError, TargetUrl};
use crate::model::limits::{PUBLISH_POOL, PUBLISH_POOL_MAX, PUBLISH_TIMEOUT, SNAPSHOTS_DEDUP, SNAPSHOTS_TTL};
use crate::model::setting::SettingError;

/// Where and how snapshots are published.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishPlan {
    /// The pipeline's name, which the keys carry.
    pub pipeline: String,
    /// Where.
    pub url: TargetUrl,
    /// The names of the keys.
    pub keys: Keys,
    /// The field of a document that holds its id. Defaults to none: `<region>.<seq>.<hash>`.
    pub id_field: Option<FieldPath>,
    /// The field of a document that holds its time. Defaults to none: when it was computed.
    pub time_field: Option<FieldPath>,
    /// What the health key holds, if [`Keys`] has one. Defaults to none.
    pub health: Option<HealthFields>,
    /// Fields of documents that stand in the summary too, each under a name of its own. Defaults to none.
    pub summary_fields: Vec<(String, FieldPath)>,
    /// How long a snapshot is kept. Defaults to 90 days.
    pub ttl: Duration,
    /// How long the same content counts as a duplicate. Defaults to 15 minutes; zero for never.
    pub dedup: Duration,
    /// Connections at most, and threads that publish. Defaults to 8.
    pub pool: usize,
    /// How long connecting may take, and how long the server may be silent while an answer is waited for. Defaults to 5 s.
    pub timeout: Duration,
    /// The signature of the store that publishes: only it may, under this name. Defaults to none: documents given by hand.
    pub signature: Option<String>,
    /// Whether what another store has published under this name may be replaced. Defaults to false.
    pub takes_over: bool,
}

impl PublishPlan {
    /// A plan with everything at its default.
    pub fn new(pipeline: &str, url: TargetUrl) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            url,
            keys: Keys::default(),
            id_field: None,
            time_field: None,
            health: None,
            summary_fields: Vec::new(),
            ttl: SNAPSHOTS_TTL,
            dedup: SNAPSHOTS_DEDUP,
            pool: PUBLISH_POOL,
            timeout: PUBLISH_TIMEOUT,
            signature: None,
            takes_over: false,
        }
    }

    /// The names of the keys.
    #[must_use]
    pub fn with_keys(self, keys: Keys) -> Self {
        Self { keys, ..self }
    }

    /// The field of a document that holds its id.
    #[must_use]
    pub fn with_id_field(self, field: FieldPath) -> Self {
        Self { id_field: Some(field), ..self }
    }

    /// The field of a document that holds its time.
    #[must_use]
    pub fn with_time_field(self, field: FieldPath) -> Self {
        Self { time_field: Some(field), ..self }
    }

    /// What the health key holds.
    #[must_use]
    pub fn with_health(self, health: HealthFields) -> Self {
        Self { health: Some(health), ..self }
    }

    /// Fields of documents that stand in the summary too, each under a name of its own.
    ///
    /// # Errors
    /// A name is one of the summary's own: region, id, seq, block.
    pub fn with_summary_fields(
        self,
        fields: impl IntoIterator<Item = (String, FieldPath)>,
    ) -> Result<Self, SettingError> {
        let fields: Vec<(String, FieldPath)> = fields.into_iter().collect();
        fields.iter().try_for_each(|(name, _)| check_summary_field(name))?;
        Ok(Self { summary_fields: fields, ..self })
    }

    /// How long a snapshot is kept.
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

    /// Connections at most, and threads that publish.
    ///
    /// # Errors
    /// There are none, or more than 256.
    pub fn with_pool(self, pool: usize) -> Result<Self, SettingError> {
        Ok(Self { pool: SettingError::unless_beyond("pool", pool, PUBLISH_POOL_MAX)?, ..self })
    }

    /// How long connecting may take, and how long the server may be silent.
    ///
    /// # Errors
    /// The duration is zero.
    pub fn with_timeout(self, timeout: Duration) -> Result<Self, SettingError> {
        Ok(Self { timeout: SettingError::unless_instant("timeout", timeout)?, ..self })
    }

    /// The signature of the store that publishes ([`crate::store::Outbox::signature`]).
    #[must_use]
    pub fn with_signature(self, signature: impl Into<String>) -> Self {
        Self { signature: Some(signature.into()), ..self }
    }

    /// Whether what another store has published under this name may be replaced.
    #[must_use]
    pub fn with_take_over(self, takes_over: bool) -> Self {
        Self { takes_over, ..self }
    }

    /// The key that holds the number of a region's newest snapshot.
    pub fn seq_key(&self, region: &str) -> String {
        self.keys.seq(&self.pipeline, region)
    }

    /// The fields of a document that hold its id and its time.
    pub fn fields(&self) -> DocumentFields {
        DocumentFields { id: self.id_field.clone(), time: self.time_field.clone() }
    }

    /// Snapshots of a store as they are published: with id and time that their documents carry, where the plan says so;
    /// and those whose documents do not.
    pub fn resolve(&self, items: Vec<Publication>) -> (Vec<Publication>, Vec<(Arc<str>, PublishError)>) {
        self.fields().resolve(items)
    }
}

/// Fields that an entry of the summary has of its own.
const ENTRY_FIELDS: [&str; 4] = ["region", "id", "seq", "block"];

/// Whether a field of documents may stand in the summary under that name.
pub(crate) fn check_summary_field(name: &str) -> Result<(), SettingError> {
    match ENTRY_FIELDS.contains(&name) {
        true => Err(SettingError::new(format!(
            "summary_fields.{name}: the summary has a field {name} of its own; expected another name"
        ))),
        false => Ok(()),
    }
}
